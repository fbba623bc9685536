"""Finds photos by file, folder and glob pattern."""

from __future__ import annotations

import glob
import os
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

IMAGE_SUFFIXES = (
    ".jpg", ".jpeg", ".png", ".webp", ".bmp", ".gif", ".tif", ".tiff", ".ppm", ".pgm", ".avif",
)  # fmt: skip


def find_photos(arguments: Sequence[str | Path] | str | Path) -> list[Path]:
    """Returns the paths of photos, given files, folders and glob patterns.

    A file is accepted with any suffix. A folder or a pattern (`holiday/*.jpg`, `photos/**`) is
    expanded to the files with an image suffix in it and below it, excluding hidden files
    and folders.

    Args:
        arguments: paths and patterns, as on a command line.

    Returns:
        Each photo once, in the order of the arguments, within an argument in natural order
        (`2.jpg` before `10.jpg`).

    Raises:
        FileNotFoundError: an argument does not exist, or contains no photo.
    """
    if isinstance(arguments, str | Path):
        arguments = [arguments]
    photos: dict[str, Path] = {}
    for argument in arguments:
        for path in _expand(argument):
            photos.setdefault(os.path.abspath(path), path)
    return list(photos.values())


def _expand(argument: str | Path) -> list[Path]:
    path = Path(argument)
    if path.is_dir():
        candidates = files_below(path)
        where = "in the folder"
    elif path.exists():
        return [path]
    elif glob.has_magic(str(argument)):
        matches = glob.iglob(str(argument), recursive=True)
        candidates = [Path(match) for match in matches if os.path.isfile(match)]
        where = "matching the pattern"
    else:
        raise FileNotFoundError(
            f"There is no file or folder {str(argument)!r}. Give a photo, a folder of photos or a "
            "pattern."
        )
    photos = [path for path in candidates if path.suffix.lower() in IMAGE_SUFFIXES]
    if not photos:
        raise FileNotFoundError(
            f"No photo {where} {str(argument)!r}, among {len(candidates)} files. Suffixes of "
            f"photos: {' '.join(IMAGE_SUFFIXES)}"
        )
    return sorted(photos, key=natural_key)


def files_below(folder: Path) -> list[Path]:
    """Returns the files in and below a folder, without hidden ones; follows each link once.

    Raises:
        OSError: a folder cannot be read.
    """

    def raise_error(error: OSError) -> None:
        raise error

    files: list[Path] = []
    visited = set()
    for root, folders, names in os.walk(folder, followlinks=True, onerror=raise_error):
        visited.add(os.path.realpath(root))
        folders[:] = [
            name
            for name in folders
            if not name.startswith(".")
            and os.path.realpath(os.path.join(root, name)) not in visited
        ]
        files += [Path(root, name) for name in names if not name.startswith(".")]
    return files


def natural_key(path: Path) -> tuple[Any, ...]:
    """Returns a sort key that compares numbers in names by value."""
    names = [re.split(r"(\d+)", name.casefold()) for name in path.parts]
    # Text and digits alternate, so that keys compare only text with text.
    return [[int(x) if i % 2 else x for i, x in enumerate(name)] for name in names], str(path)
