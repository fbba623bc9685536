"""Writes captions into text files beside the photos."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from effcap.utils.files import write_text_atomically
from effcap.utils.find_files import IMAGE_SUFFIXES

if TYPE_CHECKING:
    from effcap.caption import Caption

EXISTING = ("skip", "overwrite", "append", "prepend")


@dataclass(frozen=True)
class Sidecars:
    """Text files with the captions of photos, one per line, as image generators are trained on.

    The captions of holiday/dog.jpg are written to holiday/dog.txt. Files are UTF-8, and always
    whole: an existing one is replaced once the new one is on disk.

    Args:
        suffix: suffix that replaces that of the photo. Default ".txt".
        existing: what happens to photos whose file exists: "skip" leaves them alone (so that a
            repeated call continues an interrupted one), "overwrite" replaces the file, and
            "append" and "prepend" add lines after or before its text. Default "skip".
        before: text in front of each caption, without a space between. `{name}` stands for the
            photo's name without suffix, `{folder}` for that of its folder. Default "".
        after: text behind each caption, as `before`. Default "".

    Raises:
        ValueError: the suffix is not one, or is that of a photo; or there is no such `existing`.

    Example:
        >>> caption_folder("holiday", sidecars=Sidecars(before="a photo of {folder}, "))
    """

    suffix: str = ".txt"
    existing: str = "skip"
    before: str = ""
    after: str = ""

    def __post_init__(self) -> None:
        name = self.suffix
        if len(name) < 2 or name[0] != "." or name[-1] == "." or {"/", os.sep, "\0"} & set(name):
            raise ValueError(f"Expected a suffix such as '.txt'. Received: suffix={name!r}")
        if Path(f"x{name}").suffix.lower() in IMAGE_SUFFIXES:
            raise ValueError(
                f"Expected a suffix that photos do not have. Received: suffix={name!r}"
            )
        if self.existing not in EXISTING:
            raise ValueError(
                f"Expected existing out of {', '.join(EXISTING)}. "
                f"Received: existing={self.existing!r}"
            )

    def path(self, photo: Path) -> Path:
        """Returns the path of a photo's file."""
        return photo.with_suffix(self.suffix)

    def find_existing(self, photos: Sequence[Path]) -> list[Path]:
        """Returns the photos that are left alone, because their files exist.

        Raises:
            ValueError: two photos share a file, such as dog.jpg and dog.png.
        """
        owners: dict[str, Path] = {}
        for photo in photos:
            other = owners.setdefault(os.path.abspath(self.path(photo)), photo)
            if other != photo:
                raise ValueError(
                    "Expected photos with different names, or in different folders. "
                    f"Received: {other} and {photo}, which share {self.path(photo)}"
                )
        if self.existing != "skip":
            return []
        return [photo for photo in photos if self.path(photo).exists()]

    def text(self, photo: Path, captions: Sequence[Caption]) -> str:
        """Returns the lines of a photo."""
        folder = photo.absolute().parent.name
        before, after = (
            text.replace("{name}", photo.stem).replace("{folder}", folder)
            for text in (self.before, self.after)
        )
        return "".join(f"{before}{' '.join(x.text.split())}{after}\n" for x in captions)

    def write(self, photo: Path, captions: Sequence[Caption]) -> str:
        """Writes the captions of a photo.

        Returns:
            "", or why text cannot be added to the existing file, which is then left as it is.

        Raises:
            OSError: the file cannot be written.
        """
        path, text = self.path(photo), self.text(photo, captions)
        if self.existing in ("append", "prepend") and path.exists():
            try:
                old = path.read_text(encoding="utf-8-sig").rstrip("\n")
            except UnicodeDecodeError as error:
                return f"text cannot be added to {path}, which is not UTF-8: {error}"
            parts = [old, text] if self.existing == "append" else [text, old]
            text = "\n".join(part.rstrip("\n") for part in parts if part) + "\n"
        write_text_atomically(path, text)
        return ""
