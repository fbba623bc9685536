"""Files, folders and patterns into the paths of photos."""

from __future__ import annotations

import glob
import os
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from effcap.images import IMAGE_SUFFIXES


def find_photos(arguments: Sequence[str | Path]) -> list[Path]:
    """Expand files, folders and patterns into the paths of photos.

    A file is taken whatever its suffix. A folder gives the images in it and below it, a pattern
    (`holiday/*.jpg`, `photos/**`) those that match; an image is told by its suffix, and hidden
    files and folders are passed over.

    Args:
        arguments: as they come from a command line.

    Returns:
        Each photo once, in the order of the arguments, those of one argument in natural order
        (`2.jpg` before `10.jpg`).

    Raises:
        FileNotFoundError: an argument is not there, or gives no photo.
    """
    if isinstance(arguments, str | Path):
        arguments = [arguments]
    found: dict[str, Path] = {}
    for argument in arguments:
        for path in _expand(argument):
            found.setdefault(os.path.abspath(path), path)
    return list(found.values())


def _expand(argument: str | Path) -> list[Path]:
    path = Path(argument)
    if path.is_dir():
        candidates = _files_below(path)
        where = "in the folder"
    elif path.exists():
        return [path]
    elif glob.has_magic(str(argument)):
        candidates = [
            Path(match)
            for match in glob.iglob(str(argument), recursive=True)
            if os.path.isfile(match)
        ]
        where = "matched by the pattern"
    else:
        raise FileNotFoundError(
            f"Expected a photo, a folder of photos or a pattern. Received: {str(argument)!r}, "
            "which is not there."
        )
    photos = [path for path in candidates if path.suffix.lower() in IMAGE_SUFFIXES]
    if not photos:
        raise FileNotFoundError(
            f"No photo {where} {str(argument)!r}, among {len(candidates)} files. "
            f"Looked for: {' '.join(IMAGE_SUFFIXES)}"
        )
    return sorted(photos, key=_natural)


def _files_below(folder: Path) -> list[Path]:
    """Files in a folder and below it, hidden ones left out; links are followed, circles are not."""

    def refuse(error: OSError) -> None:
        raise error

    files: list[Path] = []
    visited = set()
    for here, folders, names in os.walk(folder, followlinks=True, onerror=refuse):
        visited.add(os.path.realpath(here))
        folders[:] = [
            name
            for name in folders
            if not name.startswith(".")
            and os.path.realpath(os.path.join(here, name)) not in visited
        ]
        files += [Path(here, name) for name in names if not name.startswith(".")]
    return files


def _natural(path: Path) -> tuple[Any, ...]:
    """Sort key under which numbers in names count as numbers."""
    parts = [re.split(r"(\d+)", part.casefold()) for part in path.parts]
    # Text and digits alternate, so that keys only ever compare text with text.
    return [[int(x) if i % 2 else x for i, x in enumerate(part)] for part in parts], str(path)
