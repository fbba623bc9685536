"""What a captioner returns for a photo."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Caption:
    """A caption with its score.

    Attributes:
        text: the caption.
        score: the sampler's score of it, a log-probability in nats; see the sampler.
        tokens: its token ids, without the end token.
    """

    text: str
    score: float
    tokens: tuple[int, ...]
