"""Data whose captions are all in memory, whatever it is that is captioned."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import TypeVar

from effcap.trainers.data.augmentation import Augmentation
from effcap.trainers.data.example import CaptionedPhoto, Problem, subset

Data = TypeVar("Data", bound="CaptionedData")


@dataclass(frozen=True)
class CaptionedData:
    """What is captioned, and what was wrong with the rest: what most sources of data share; see
    `DataSource` in `preparation`.

    Attributes:
        photos: photos, or what stands in their place, with their captions.
        problems: what could not be used.
    """

    photos: list[CaptionedPhoto]
    problems: list[Problem]

    def subset(self: Data, share: float, seed: int) -> Data:
        """See `DataSource`."""
        photos, problems = subset(self.photos, self.problems, share, seed)
        return replace(self, photos=photos, problems=problems)

    def captions(self) -> list[str]:
        """See `DataSource`."""
        return [text for photo in self.photos for text in photo.captions]

    def references(self) -> Iterator[Sequence[str]]:
        """See `DataSource`."""
        return (photo.captions for photo in self.photos)

    @property
    def total(self) -> int:
        """Number of captions, good and bad."""
        good = sum(len(photo.captions) for photo in self.photos)
        return good + sum(problem.captions for problem in self.problems)


def refuse_augmentation(augmentation: Augmentation, instead: str) -> None:
    """ValueError where photos are to be varied, but there are `instead` of photos."""
    if augmentation != Augmentation():
        raise ValueError(
            f"Expected no mirror, crop or colour, which vary photos, with {instead}. "
            f"Received: {augmentation}"
        )
