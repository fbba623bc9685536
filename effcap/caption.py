"""Generated captions, and their tokens with their probabilities."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from os import PathLike
from pathlib import Path
from typing import Any

from effcap.display import caption_html, list_html, photo_html


@dataclass(frozen=True)
class TokenDetail:
    """A generated token with its score.

    Attributes:
        token: id of the token.
        text: what the token adds to the text of the caption, with the space before a word. "" for
            a token after which a character is not complete; the token that completes it has it.
            That of a special token is its name, such as "<|endoftext|>".
        score: log-probability of the token after those before it, in nats.
    """

    token: int
    text: str
    score: float

    @property
    def probability(self) -> float:
        """Probability of the token after those before it, in 0..1."""
        return math.exp(self.score)


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
        details: the generated tokens in order, and the end token if the caption is finished. Their
            scores sum to `score`. () if there is no caption: a beam search was asked for more
            captions than there are, and `score` is -inf.
        missing: groups of the sampler's `include` of which the caption contains no word, such as
            "orange|white". A sampler returns such a caption only if it finds no other.
    """

    text: str
    score: float
    tokens: tuple[int, ...]
    prefix: str = ""
    is_finished: bool = True
    details: tuple[TokenDetail, ...] = field(default=(), repr=False)
    missing: tuple[str, ...] = ()

    @property
    def continuation(self) -> str:
        """The generated text, after the prefix."""
        return self.text.removeprefix(self.prefix).strip()

    @property
    def mean_score(self) -> float:
        """Mean log-probability per generated token, the end token included.

        It is comparable between captions of different lengths. An empty caption has only the score
        of its end token; `score` itself is returned where there are no `details`.
        """
        return self.score / max(len(self.details), 1)

    @property
    def confidence(self) -> float:
        """Geometric mean of the probabilities of the generated tokens, in 0..1."""
        return math.exp(self.mean_score)

    def _repr_html_(self) -> str:
        """Returns what a notebook shows: words underlined where improbable, and the scores."""
        pieces = [(detail.text, detail.probability) for detail in self.details]
        if self.is_finished:
            pieces = pieces[:-1]
        if self.prefix and pieces:
            pieces.insert(0, (self.prefix, 1.0))
        numbers = {"confidence": self.confidence} if self.details else {}
        return caption_html(self.text, pieces, {**numbers, "score": self.score})


class PhotoCaptions(list[Caption]):
    """The captions of one photo, best first: a list that a notebook shows with the photo.

    Args:
        captions: the captions.
        photo: the photo as `generate` was given it; None if it is not kept.
    """

    def __init__(self, captions: Iterable[Caption] = (), photo: Any = None) -> None:
        super().__init__(captions)
        self.photo = photo

    def _repr_html_(self) -> str:
        """Returns what a notebook shows: the photo with its captions."""
        name = Path(self.photo).name if isinstance(self.photo, str | PathLike) else ""
        return photo_html(self.photo, (caption._repr_html_() for caption in self), name)


class CaptionedPhotos(list[PhotoCaptions]):
    """The captions of several photos: a list that a notebook shows with the photos."""

    def _repr_html_(self) -> str:
        """Returns what a notebook shows: the first photos with their captions."""
        return list_html(self._blocks(), len(self))

    def _blocks(self) -> Iterator[str]:
        return (captions._repr_html_() for captions in self)
