"""How self-critical training samples captions, and what it rewards."""

from __future__ import annotations

import math
from dataclasses import dataclass, field

BASELINES = ("others", "greedy")


@dataclass(frozen=True, kw_only=True)
class RewardOptions:
    """What a reward is made of.

    Attributes:
        bleu: weight of the caption's own BLEU-4, added to its CIDEr-D.
        length: what is taken off for each word that a caption has more or fewer than its photo's
            references have on average.

    Raises:
        ValueError: for a value out of range.
    """

    bleu: float = 0.0
    length: float = 0.0

    def __post_init__(self):
        for name, value in vars(self).items():
            if not 0 <= value < math.inf:
                raise ValueError(f"Expected {name} of at least 0. Received: {name}={value}")


@dataclass(frozen=True, kw_only=True)
class ScstOptions:
    """How captions are sampled and rewarded.

    Attributes:
        samples: captions per photo.
        temperature, p: of the sampling, as in `Nucleus`.
        max_tokens: of a sample; what is longer is cut, and gets no end.
        baseline: what a reward is compared with: "others", the mean of the photo's other samples,
            or "greedy", the caption that the captioner finds most likely.
        cross_entropy: share of the loss that is cross-entropy on the references, from 0 up to but
            not including 1.
        min_distinct: share of distinct captions among the first samples of 500 photos, below which
            the run stops.
        reward: what a caption is worth.

    Raises:
        ValueError: for a value out of range.
    """

    samples: int = 5
    temperature: float = 1.0
    p: float = 1.0
    max_tokens: int = 30
    baseline: str = BASELINES[0]
    cross_entropy: float = 0.0
    min_distinct: float = 0.1
    reward: RewardOptions = field(default_factory=RewardOptions)

    def __post_init__(self):
        if self.baseline not in BASELINES:
            raise ValueError(
                f"Expected a baseline out of {', '.join(BASELINES)}. "
                f"Received: baseline={self.baseline!r}"
            )
        least = 2 if self.baseline == "others" else 1
        if self.samples < least:
            raise ValueError(
                f"Expected at least {least} samples with the baseline {self.baseline!r}. "
                f"Received: samples={self.samples}"
            )
        for name in ("cross_entropy", "min_distinct"):
            if not 0 <= getattr(self, name) < 1:
                raise ValueError(
                    f"Expected {name} from 0 up to but not including 1. "
                    f"Received: {name}={getattr(self, name)}"
                )
        if not (self.temperature > 0 and 0 < self.p <= 1 and self.max_tokens > 0):
            raise ValueError(
                "Expected temperature and max_tokens above 0, and p above 0, up to 1. Received: "
                f"temperature={self.temperature}, max_tokens={self.max_tokens}, p={self.p}"
            )
