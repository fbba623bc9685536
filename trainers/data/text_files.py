"""Helpers for readers of caption files: decoding of text files and a table of captions."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import replace
from os import PathLike
from pathlib import Path
from typing import Any

from effcap.trainers.data.example import Example, Problem, one_line

UTF16_MARKS = (b"\xff\xfe", b"\xfe\xff")
MAX_TEXT = 2**17  # characters; 1024 tokens hold fewer
LINE = re.compile(r"[^\r\n]*(?:\r\n?|\n)|[^\r\n]+")


def read_text(path: Path, kind: str) -> str:
    """Reads a UTF-8 text file, with or without a byte-order mark.

    Args:
        path: the file.
        kind: format of the file, such as "CSV", for messages.

    Raises:
        FileNotFoundError: the file does not exist, or is a folder.
        ValueError: the file has another encoding.
    """
    if path.is_dir():
        raise FileNotFoundError(f"Expected a {kind} file. Received: {path}, which is a folder")
    if not path.exists():
        raise FileNotFoundError(f"{kind} file not found: {path}")
    data = path.read_bytes()
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        if data.startswith(UTF16_MARKS):
            reason = "is in UTF-16"
        else:
            line = data.count(b"\n", 0, error.start) + 1
            reason = f"has the invalid byte {data[error.start]:#04x} in line {line}"
        raise ValueError(
            f"Expected a {kind} file in UTF-8. Received: {path}, which {reason}; save it as UTF-8"
        ) from None


def split_lines(text: str) -> Iterator[str]:
    """Yields the lines of a text with their line ends: LF, CRLF or CR, and no others."""
    return (match.group() for match in LINE.finditer(text))


def photo_folder(path: Path, images: str | PathLike[str] | None) -> Path:
    """Returns the folder that photo names are relative to; by default that of the caption file.

    Raises:
        FileNotFoundError: the folder does not exist.
    """
    folder = path.parent if images is None else Path(images)
    if not folder.is_dir():
        raise FileNotFoundError(f"Folder of photos not found: {folder}")
    return folder


class CaptionTable:
    """A table of captions by photo, and of captions that cannot be used.

    Different spellings of a path (`a.jpg`, `./a.jpg`) are one photo. Duplicate captions are kept.
    A photo with several prefixes has an example for each.

    Args:
        folder: folder that photo names are relative to.
        edit: function applied to every caption; None for no change.

    Attributes:
        problems: what cannot be used.
    """

    def __init__(self, folder: Path, edit: Callable[[str], str] | None = None):
        self.folder, self.edit = folder, edit
        self.problems: list[Problem] = []
        self._photos: dict[tuple[str, str], tuple[Path, str, list[str]]] = {}  # by path and prefix
        self._captions: dict[tuple[str, str], list[str]] = {}  # by name as it is spelled and prefix

    def add(self, where: str, image: Any, captions: Sequence[Any], prefix: Any = None) -> None:
        """Adds captions of a photo, or problems.

        Args:
            where: file and line of the captions.
            image: name of the photo; anything but a usable string is a problem.
            captions: captions; likewise.
            prefix: text that the captions continue; likewise. None or "" for none.
        """
        values = {"the name of an image": image}
        if not (prefix is None or (isinstance(prefix, str) and not prefix.strip())):
            values["a prefix"] = prefix
        for role, value in values.items():
            fault = find_fault(value)
            if fault:
                reason = f"expected {role}. Received: {fault}"
                self.problems.append(Problem(where, reason, len(captions)))
                return
        image, prefix = image.strip(), (prefix or "").strip()
        usable = self._captions_of(image, prefix)
        for caption in captions:
            text, fault = edit_caption(caption, self.edit)
            if fault:
                reason = f"expected a caption of {image}. Received: {fault}"
                self.problems.append(Problem(where, reason))
            else:
                usable.append(text)

    def _captions_of(self, image: str, prefix: str) -> list[str]:
        """Returns the captions of a photo after a prefix, for any spelling of its name."""
        if (image, prefix) not in self._captions:
            name = os.path.normpath(image)
            path = Path(self.folder, name)
            photo = self._photos.setdefault((os.path.abspath(path), prefix), (path, name, []))
            self._captions[image, prefix] = photo[2]
        return self._captions[image, prefix]

    def examples(self) -> list[Example]:
        """Returns the photos with usable captions, in the order of their first rows."""
        return [
            Example(path, tuple(texts), name, prefix)
            for (_, prefix), (path, name, texts) in self._photos.items()
            if texts
        ]

    def paths(self) -> list[str]:
        """Returns the absolute paths of all named photos, also of those without usable captions."""
        return list(dict.fromkeys(path for path, _ in self._photos))


def edit_caption(caption: Any, edit: Callable[[str], str] | None = None) -> tuple[str, str | None]:
    """Edits a value from a file as a caption.

    Returns:
        (stripped caption, None), or ("", why the value, or what is left of it, cannot be used).
    """
    fault = find_fault(caption)
    if fault:
        return "", fault
    text = edit(caption) if edit else caption
    fault = find_fault(text)
    if fault:
        return "", f"{fault} after cleaning {one_line(caption)!r}"
    return text.strip(), None


def find_fault(text: Any) -> str | None:
    """Returns why a value from a file cannot be a name or caption; None if it can."""
    if not isinstance(text, str):
        return describe(text)
    length = len(text.strip())
    if length == 0:
        return "empty text"
    if length > MAX_TEXT:
        return f"a text of {length} characters"
    if "\0" in text:
        return "text with a null character"
    try:
        text.encode()
    except UnicodeEncodeError:
        return f"text with an unpaired surrogate: {one_line(text)}"
    return None


def describe(value: Any) -> str:
    """Describes a value from a file briefly, without its contents if it is large or nested."""
    if isinstance(value, dict):
        return one_line(f"an object with the keys {', '.join(value)}") if value else "an object {}"
    if isinstance(value, list):
        return f"a list of {len(value)}"
    return one_line(repr(value))


def read_files(
    read: Callable[[Path], tuple[list[Example], list[Problem]]],
    paths: str | PathLike[str] | Iterable[str | PathLike[str]],
) -> tuple[list[Example], list[Problem]]:
    """Reads one or several caption files and merges the captions of photos in several of them.

    Args:
        read: function that reads one file.
        paths: one path or several.

    Returns:
        (examples, problems).

    Raises:
        ValueError: a file is given twice.
    """
    files = [Path(path) for path in as_paths(paths)]
    absolute = [path.absolute() for path in files]
    for i, path in enumerate(files):
        if absolute[i] in absolute[:i]:
            raise ValueError(f"Expected different files. Received: {path} twice")
    examples: dict[tuple[str, str], Example] = {}
    problems: list[Problem] = []
    for path in files:
        new_examples, new_problems = read(path)
        problems += new_problems
        for example in new_examples:
            key = (os.path.abspath(example.path), example.prefix)
            captions = examples[key].captions if key in examples else ()
            examples[key] = replace(example, captions=captions + example.captions)
    return list(examples.values()), problems


def as_paths(
    paths: str | PathLike[str] | Iterable[str | PathLike[str]],
) -> list[str | PathLike[str]]:
    """Returns one path or several as a list."""
    return [paths] if isinstance(paths, str | PathLike) else list(paths)
