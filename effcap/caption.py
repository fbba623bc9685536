"""A generated caption."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Caption:
    """A generated caption with its score.

    Attributes:
        text: text of the caption.
        score: score assigned by the sampler, in nats; see the sampler for its definition.
        tokens: token ids, without the end token.
    """

    text: str
    score: float
    tokens: tuple[int, ...]
