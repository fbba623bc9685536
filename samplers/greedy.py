"""Greedy decoding."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from keras import ops

from effcap.samplers.base import Sampler, Samples, Step
from effcap.samplers.decode_loop import Decoding, grow


@dataclass(frozen=True, kw_only=True)
class Greedy(Sampler):
    """Takes the most probable token at each step; of equal ones the lower id.

    One caption per image, R = B rows. Its score is the sum of the log-probabilities of its tokens,
    the `eos` included, under the model's distribution (after `repetition_penalty`).

    Example:

    ```python
    samples = Greedy(max_tokens=20)(step, prompt, state, eos=50256)
    ```
    """

    def __call__(self, step: Step, prompt: Any, state: Any, *, eos: int) -> Samples:
        decoding = Decoding(self, step, prompt, state, eos)
        return grow(decoding, lambda following, count: ops.argmax(following.logits, axis=-1))
