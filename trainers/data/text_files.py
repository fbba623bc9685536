"""What readers of caption files share: the text of a file, and captions gathered by photo."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from os import PathLike
from pathlib import Path
from typing import Any

from effcap.trainers.data.example import CaptionedPhoto, Problem, one_line

Data = tuple[list[CaptionedPhoto], list[Problem]]
UTF16_MARKS = (b"\xff\xfe", b"\xfe\xff")
LONGEST_TEXT = 2**17  # characters: more than 1024 tokens can hold
LINE = re.compile(r"[^\r\n]*(?:\r\n?|\n)|[^\r\n]+")


def read_text(path: Path, kind: str) -> str:
    """The text of a file in UTF-8, with or without a byte-order mark.

    Raises:
        FileNotFoundError: without such a file.
        ValueError: when it is in another encoding.
    """
    if path.is_dir():
        raise FileNotFoundError(f"Expected a {kind} file. Received: {path}, which is a folder")
    if not path.exists():
        raise FileNotFoundError(f"Expected a {kind} file. Received: {path}, which is not there")
    data = path.read_bytes()
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        if data.startswith(UTF16_MARKS):
            found = "which is in UTF-16"
        else:
            line = data.count(b"\n", 0, error.start) + 1
            found = f"which is not: byte {data[error.start]:#04x} in line {line}"
        raise ValueError(
            f"Expected a {kind} file in UTF-8. Received: {path}, {found}; save it as UTF-8"
        ) from None


def lines_of(text: str) -> Iterator[str]:
    """The lines of a text, with their ends; LF, CRLF and CR end a line, and nothing else does."""
    return (match.group() for match in LINE.finditer(text))


def photo_folder(path: Path, images: str | PathLike | None) -> Path:
    """The folder that the photos of a file are relative to: its own where none is given."""
    folder = path.parent if images is None else Path(images)
    if not folder.is_dir():
        raise FileNotFoundError(f"Expected a folder of photos. Received: {folder}")
    return folder


class Collector:
    """Gathers captions by photo, and what is wrong with those that cannot be used.

    Different spellings of a path (`a.jpg`, `./a.jpg`) are one photo. A caption that stands there
    twice counts twice: people do agree.

    Args:
        folder: that names of photos are relative to.
        edit: applied to every caption.

    Attributes:
        problems: what could not be used.
    """

    def __init__(self, folder: Path, edit: Callable[[str], str] | None = None):
        self.folder, self.edit = folder, edit
        self.problems: list[Problem] = []
        self._photos: dict[str, tuple[Path, str, list[str]]] = {}  # by absolute path
        self._texts: dict[str, list[str]] = {}  # by the name as it is spelt

    def add(self, where: str, image: Any, captions: Sequence[Any]) -> None:
        """Takes captions of a photo from the place `where`."""
        reason = fault(image)
        if reason:
            reason = f"expected the name of an image. Received: {reason}"
            self.problems.append(Problem(where, reason, len(captions)))
            return
        image = image.strip()
        for caption in captions:
            reason = fault(caption)
            if not reason and self.edit:
                caption = self.edit(caption)
                reason = fault(caption)
            if reason:
                reason = f"expected a caption of {image}. Received: {reason}"
                self.problems.append(Problem(where, reason))
            else:
                self._captions_of(image).append(caption.strip())

    def _captions_of(self, image: str) -> list[str]:
        """The captions so far of a photo, however its name is spelt."""
        if image not in self._texts:
            name = os.path.normpath(image)
            path = Path(self.folder, name)
            photo = self._photos.setdefault(os.path.abspath(path), (path, name, []))
            self._texts[image] = photo[2]
        return self._texts[image]

    def photos(self) -> list[CaptionedPhoto]:
        """Photos with their captions, in the order in which they first appeared."""
        return [
            CaptionedPhoto(path, tuple(texts), name) for path, name, texts in self._photos.values()
        ]


def fault(text: Any) -> str | None:
    """What is wrong with a name or a caption from a file; None where it can be used."""
    if not isinstance(text, str):
        return describe(text)
    length = len(text.strip())
    if length == 0:
        return "nothing"
    if length > LONGEST_TEXT:
        return f"a text of {length} characters"
    if "\0" in text:
        return "text with a null character"
    try:
        text.encode()
    except UnicodeEncodeError:
        return f"text with half a character: {one_line(text)}"
    return None


def describe(value: Any) -> str:
    """A value from a file in a few words: what is large or deep is not printed whole."""
    if isinstance(value, dict):
        return one_line(f"an object with the keys {', '.join(value)}") if value else "an object {}"
    if isinstance(value, list):
        return f"a list of {len(value)}"
    return one_line(repr(value))


def read_several(read: Callable[[Path], Data], paths: Iterable[str | PathLike]) -> Data:
    """What `read` gives for several files; a photo in several of them is one.

    Raises:
        ValueError: for the same file twice.
    """
    paths = [Path(path) for path in paths]
    absolute = [path.absolute() for path in paths]
    for number, path in enumerate(paths):
        if absolute[number] in absolute[:number]:
            raise ValueError(f"Expected different files. Received: {path} twice")
    photos: dict[str, CaptionedPhoto] = {}
    problems: list[Problem] = []
    for path in paths:
        more, wrong = read(path)
        problems += wrong
        for photo in more:
            key = os.path.abspath(photo.path)
            known = photos.get(key)
            captions = known.captions + photo.captions if known else photo.captions
            photos[key] = CaptionedPhoto(photo.path, captions, photo.name)
    return list(photos.values()), problems
