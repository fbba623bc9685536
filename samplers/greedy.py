"""Greedy decoding."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from keras import ops

from effcap.samplers.base import Hypotheses, Sampler, Step
from effcap.samplers.decode_loop import DecodeLoop, decode_rows


@dataclass(frozen=True, kw_only=True)
class Greedy(Sampler):
    """Greedy decoding: the most probable token at each step, the lower id of equal ones.

    Generates one caption per image (K = 1, R = B rows). Its score is the sum of the
    log-probabilities of its tokens including `eos`, under the model's distribution (after
    `repetition_penalty`).

    Example:

    ```python
    hypotheses = Greedy(max_new_tokens=20)(step, prompt, state, eos=50256)
    ```
    """

    def __call__(self, step: Step, prompt: Any, state: Any, *, eos: int) -> Hypotheses:
        loop = DecodeLoop(self, step, prompt, state, eos)
        return decode_rows(loop, lambda next_token, length: ops.argmax(next_token.logits, axis=-1))
