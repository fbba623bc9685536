"""Greedy decoding."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any

from effcap.samplers.base import Hypotheses, Sampler, Step
from effcap.samplers.beam import Beam
from effcap.samplers.decode_loop import DecodeLoop, decode_greedily


@dataclass(frozen=True, kw_only=True)
class Greedy(Sampler):
    """Greedy decoding: the most probable token at each step, the lower id of equal ones.

    Generates one caption per image (K = 1, R = B rows). With `include` it is a `Beam` of 5 beams
    (R = 5 B rows), because words that are decided beforehand take a search.

    Example:

    ```python
    hypotheses = Greedy(max_new_tokens=20)(step, prompt, state, eos=50256)
    ```
    """

    @property
    def rows_per_image(self) -> int:
        return Beam.num_beams if self.include else 1

    def __call__(
        self,
        step: Step,
        prompt: Any,
        state: Any,
        *,
        eos: int,
        inputs: Mapping[str, Any] | None = None,
    ) -> Hypotheses:
        if self.include:
            rules = {field.name: getattr(self, field.name) for field in fields(Sampler)}
            return Beam(**rules)(step, prompt, state, eos=eos, inputs=inputs)
        return decode_greedily(DecodeLoop(self, step, prompt, state, eos, inputs))
