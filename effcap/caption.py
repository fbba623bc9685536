"""A generated caption."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Caption:
    """A generated caption with its score.

    Attributes:
        text: text of the caption.
        score: log-probability of the caption under the model, in nats: the sum of those of its
            tokens and the end token.
        tokens: token ids, without the end token.
    """

    text: str
    score: float
    tokens: tuple[int, ...]
