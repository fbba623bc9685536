"""Base class of the destinations of captions: beside photos and in them."""

from __future__ import annotations

import os
import unicodedata
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from effcap.caption import Caption

EXISTING = ("skip", "overwrite", "append", "prepend")


class CannotWrite(ValueError):
    """The captions of one photo cannot be written, with the reason; others can."""


class WritePlan(NamedTuple):
    """What writes captions, and the photos that get none.

    Attributes:
        writer: destination of the captions.
        existing: photos that are left alone, because they have captions.
        refused: photos that captions cannot be written for, with the reason.
    """

    writer: CaptionWriter
    existing: list[Path]
    refused: list[tuple[Path, str]]

    @property
    def left_out(self) -> set[Path]:
        """The photos that get no captions."""
        return {*self.existing, *(path for path, _ in self.refused)}


@dataclass(frozen=True, kw_only=True)
class CaptionWriter(ABC):
    """Writes the captions of each photo to where they are kept.

    Files are always whole: an existing one is replaced once the new one is on disk.

    Args:
        existing: what happens to photos that have a caption there: "skip" leaves them alone (so
            that a repeated call continues an interrupted one), "overwrite" replaces it, and
            "append" and "prepend" add lines after or before it. Default "skip".
        before, after: text in front of and behind each caption, without spaces between. `{name}`
            stands for the photo's name without suffix, `{folder}` for that of its folder.
            Default "".

    Raises:
        ValueError: there is no such `existing`, or a text has control characters.
    """

    existing: str = "skip"
    before: str = ""
    after: str = ""

    def __post_init__(self) -> None:
        if self.existing not in EXISTING:
            raise ValueError(
                f"Expected existing out of {', '.join(EXISTING)}. "
                f"Received: existing={self.existing!r}"
            )
        for name in ("before", "after"):
            text = getattr(self, name)
            if any(unicodedata.category(character) == "Cc" for character in text):
                raise ValueError(
                    f"Expected {name} without control characters. Received: {name}={text!r}"
                )

    @abstractmethod
    def path(self, photo: Path) -> Path:
        """Returns the path of the file that a photo's captions are written to."""

    @abstractmethod
    def read(self, photo: Path) -> str:
        """Returns the captions that exist for a photo, or "".

        Raises:
            CannotWrite: captions of this photo cannot be written.
            OSError: the file cannot be read.
        """

    @abstractmethod
    def replace(self, photo: Path, text: str) -> None:
        """Writes lines in place of the captions that exist for a photo.

        Raises:
            CannotWrite: they cannot be written.
            OSError: they cannot be written, and those of other photos probably neither.
        """

    @property
    @abstractmethod
    def where(self) -> str:
        """Names what is written where, such as "files .txt written beside the photos"."""

    def plan(self, photos: Sequence[Path]) -> WritePlan:
        """Finds out which photos get captions, before any is made.

        Raises:
            ValueError: two photos share a file, such as dog.jpg and dog.png; or captions can be
                written for none of the photos.
        """
        owners: dict[str, Path] = {}
        plan = WritePlan(self, [], [])
        for photo in photos:
            try:
                path = self.path(photo)
                file = os.path.normcase(os.path.realpath(path))
                if owners.setdefault(file, photo) != photo:
                    raise ValueError(
                        "Expected photos with different names, or in different folders. "
                        f"Received: {owners[file]} and {photo}, which share {path}"
                    )
                if self.exists(photo) and self.existing == "skip":
                    plan.existing.append(photo)
                else:
                    check_writable(path)
            except CannotWrite as error:
                plan.refused.append((photo, str(error)))
            except OSError as error:
                plan.refused.append((photo, error.strerror or str(error)))
        if photos and len(plan.refused) == len(photos):
            photo, reason = plan.refused[0]
            raise ValueError(
                f"Captions cannot be written for any of the {len(photos)} photos, such as {photo}: "
                f"{reason}"
            )
        return plan

    def exists(self, photo: Path) -> bool:
        """Returns whether a photo has captions.

        Raises:
            CannotWrite, OSError: as `read`.
        """
        return bool(self.read(photo))

    def lines(self, photo: Path, captions: Sequence[Caption]) -> list[str]:
        """Returns the new lines of a photo."""
        folder = photo.absolute().parent.name
        before, after = (
            text.replace("{name}", photo.stem).replace("{folder}", folder)
            for text in (self.before, self.after)
        )
        return [f"{before}{' '.join(caption.text.split())}{after}" for caption in captions]

    def write(self, photo: Path, captions: Sequence[Caption]) -> None:
        """Writes the captions of a photo.

        Raises:
            CannotWrite: they cannot be written or added to the existing ones, which stay.
            OSError: the file cannot be written.
        """
        lines = self.lines(photo, captions)
        if self.existing in ("append", "prepend"):
            old = [text for text in [self.read(photo)] if text]
            lines = old + lines if self.existing == "append" else lines + old
        try:
            self.replace(photo, "\n".join(lines))
        except PermissionError as error:
            raise CannotWrite(f"{self.path(photo)}: {error.strerror}") from error
        except UnicodeEncodeError:  # `before` or `after` with a name that is not UTF-8
            raise CannotWrite("the name of the photo or of its folder is not UTF-8") from None


def check_writable(path: Path) -> None:
    """Checks that a file may be replaced or created, before a caption is made for it.

    Raises:
        CannotWrite: the file or its folder is read-only.
    """
    path = Path(os.path.realpath(path))
    for place in (path, path.parent):
        if place.exists() and not os.access(place, os.W_OK):
            raise CannotWrite(f"{place} is read-only")
