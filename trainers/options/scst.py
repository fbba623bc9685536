"""Options of self-critical sequence training: how captions are sampled and rewarded."""

from __future__ import annotations

import math
from dataclasses import dataclass

BASELINES = ("others", "greedy")


@dataclass(frozen=True, kw_only=True)
class ScstOptions:
    """Options of self-critical sequence training (SCST).

    Attributes:
        num_samples: captions sampled per photo.
        temperature: sampling temperature.
        top_p: probability mass of nucleus sampling.
        max_new_tokens: maximum number of decoding steps per sampled caption. Longer captions are
            truncated and have no end token.
        baseline: baseline of the rewards, "others" or "greedy". It is the mean reward of the
            photo's other samples, or the reward of its greedy caption.
        cross_entropy_weight: fraction of the loss that is cross-entropy on the references, from 0
            up to but not including 1.
        min_distinct: minimum fraction of distinct captions among the last 500 photos. Training
            stops below it.
        bleu_weight: weight of BLEU-4, added to CIDEr-D.
        length_weight: penalty per word of difference between the caption's length and the mean
            length of the references.

    Raises:
        ValueError: a value is out of range.
    """

    num_samples: int = 5
    temperature: float = 1.0
    top_p: float = 1.0
    max_new_tokens: int = 30
    baseline: str = "others"
    cross_entropy_weight: float = 0.0
    min_distinct: float = 0.1
    bleu_weight: float = 0.0
    length_weight: float = 0.0

    def __post_init__(self) -> None:
        if self.baseline not in BASELINES:
            raise ValueError(
                f"Expected a baseline out of {', '.join(BASELINES)}. "
                f"Received: baseline={self.baseline!r}"
            )
        min_samples = 2 if self.baseline == "others" else 1
        if self.num_samples < min_samples:
            raise ValueError(
                f"Expected at least {min_samples} samples with baseline={self.baseline!r}. "
                f"Received: num_samples={self.num_samples}"
            )
        for name in ("cross_entropy_weight", "min_distinct"):
            if not 0 <= getattr(self, name) < 1:
                raise ValueError(
                    f"Expected {name} from 0 up to but not including 1. "
                    f"Received: {name}={getattr(self, name)}"
                )
        for name in ("bleu_weight", "length_weight"):
            if not 0 <= getattr(self, name) < math.inf:
                raise ValueError(
                    f"Expected {name} of at least 0. Received: {name}={getattr(self, name)}"
                )
        if not self.temperature > 0:
            raise ValueError(
                f"Expected temperature above 0. Received: temperature={self.temperature}"
            )
        if not 0 < self.top_p <= 1:
            raise ValueError(f"Expected top_p above 0 and up to 1. Received: top_p={self.top_p}")
        if self.max_new_tokens < 1:
            raise ValueError(
                f"Expected max_new_tokens of at least 1. Received: {self.max_new_tokens}"
            )
