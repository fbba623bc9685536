"""A generated caption."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Caption:
    """A generated caption with its score.

    Attributes:
        text: text of the caption, with the prefix that it continues.
        score: log-probability of the caption under the model, in nats: the sum of those of its
            generated tokens and the end token, without those of a prefix.
        tokens: token ids of the whole text, without the end token.
        prefix: the text that was given, as its tokens are decoded; "" for none.
        is_finished: whether the model ended the caption; False if the sampler's maximum length cut
            it.
    """

    text: str
    score: float
    tokens: tuple[int, ...]
    prefix: str = ""
    is_finished: bool = True

    @property
    def continuation(self) -> str:
        """The generated text, after the prefix."""
        return self.text.removeprefix(self.prefix).strip()
