"""Greedy decoding."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from keras import ops

from effcap.samplers.base import Hypotheses, Sampler, Step
from effcap.samplers.decode_loop import DecodeLoop, decode_rows


@dataclass(frozen=True, kw_only=True)
class Greedy(Sampler):
    """Greedy decoding: the most probable token at each step, the lower id of equal ones.

    Generates one caption per image (K = 1, R = B rows).

    Example:

    ```python
    hypotheses = Greedy(max_new_tokens=20)(step, prompt, state, eos=50256)
    ```
    """

    def __call__(
        self,
        step: Step,
        prompt: Any,
        state: Any,
        *,
        eos: int,
        inputs: Mapping[str, Any] | None = None,
    ) -> Hypotheses:
        loop = DecodeLoop(self, step, prompt, state, eos, inputs)
        return decode_rows(loop, lambda next_token, length: ops.argmax(next_token.logits, axis=-1))
