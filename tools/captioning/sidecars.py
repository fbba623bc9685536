"""Writes captions into text files beside the photos."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

from effcap.tools.captioning.caption_writer import CannotWrite, CaptionWriter
from effcap.utils.files import replace_contents
from effcap.utils.find_files import IMAGE_SUFFIXES


@dataclass(frozen=True)
class Sidecars(CaptionWriter):
    """Text files with the captions of photos, one per line, as image generators are trained on.

    The captions of holiday/dog.jpg are written to holiday/dog.txt, in UTF-8.

    Args:
        suffix: suffix that replaces that of the photo. Default ".txt".
        existing, before, after: see `CaptionWriter`.

    Raises:
        ValueError: the suffix is not one, or is that of a photo; or there is no such `existing`.

    Example:
        >>> caption_folder("holiday", writer=Sidecars(before="a photo of {folder}, "))
    """

    suffix: str = ".txt"

    def __post_init__(self) -> None:
        super().__post_init__()
        name = self.suffix
        if len(name) < 2 or name[0] != "." or name[-1] == "." or {"/", os.sep, "\0"} & set(name):
            raise ValueError(f"Expected a suffix such as '.txt'. Received: suffix={name!r}")
        if Path(f"x{name}").suffix.lower() in IMAGE_SUFFIXES:
            raise ValueError(
                f"Expected a suffix that photos do not have. Received: suffix={name!r}"
            )

    def path(self, photo: Path) -> Path:
        """Returns the path of a photo's file."""
        return photo.with_suffix(self.suffix)

    @property
    def where(self) -> str:
        """Names what is written where."""
        return f"files {self.suffix} written beside the photos"

    def exists(self, photo: Path) -> bool:
        """Returns whether a photo has a file, which may be empty."""
        return self.path(photo).exists()

    def read(self, photo: Path) -> str:
        """Returns the lines that exist for a photo, or "".

        Raises:
            CannotWrite: text cannot be added to the file.
            OSError: the file cannot be read.
        """
        path = self.path(photo)
        if not path.exists():
            return ""
        try:
            return path.read_text(encoding="utf-8-sig").rstrip("\n")
        except UnicodeDecodeError as error:
            raise CannotWrite(
                f"text cannot be added to {path}, which is not UTF-8: {error}"
            ) from error

    def replace(self, photo: Path, text: str) -> None:
        """Writes the lines of a photo.

        Raises:
            OSError: the file cannot be written.
        """
        replace_contents(self.path(photo), [f"{text}\n".encode()])
