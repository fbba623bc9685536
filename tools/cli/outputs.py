"""Checks of output options, and the writing of captions."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from effcap.caption import Caption
    from effcap.tools.captioning.playlists import PlaylistCaption
    from effcap.tools.captioning.results import CaptionResults


def check_file(path: Path | None, option: str) -> None:
    """Raises an `IsADirectoryError` if the path of an output file is a folder."""
    if path is not None and path.is_dir():
        raise IsADirectoryError(f"{option} must be a file. Received: {path}, a folder")


def check_table_file(path: Path | None, option: str) -> None:
    """Checks the path of a table to write.

    Raises:
        IsADirectoryError: it is a folder.
        ValueError: its suffix is not that of a table.
        ImportError: it is Parquet, and pyarrow is not installed.
    """
    from effcap.tools.reports.tables import check_table

    check_file(path, option)
    if path is not None:
        check_table(path)


def check_folder(path: Path | None, option: str) -> None:
    """Raises a `NotADirectoryError` if the path of an output folder is a file."""
    if path is not None and path.exists() and not path.is_dir():
        raise NotADirectoryError(f"{option} must be a folder. Received: {path}, a file")


def refuse_page(arguments: argparse.Namespace, option: str) -> None:
    """Checks the outputs of `effcap caption` for inputs that are not photos.

    Raises:
        ValueError: a page is requested.
        IsADirectoryError: --out is a folder.
    """
    for name in ("page", "beside"):
        if getattr(arguments, name) is not None:
            raise ValueError(f"--{name} cannot be used with {option}: there are no photos to show")
    check_table_file(arguments.out, "--out")


def refuse_prefix_words(arguments: argparse.Namespace) -> None:
    """Raises a `ValueError` for --prefix-words without photos."""
    for name in ("shards", "features", "playlist"):
        if arguments.prefix_words and getattr(arguments, name):
            raise ValueError(f"--prefix-words cannot be used with --{name}")


def write_captions(path: Path, results: Sequence[dict[str, Any]]) -> None:
    """Writes captions as a table and prints the path."""
    from effcap.tools.reports.tables import write_table
    from effcap.utils.progress import print_line

    write_table(path, results)
    print_line(f"captions: {path}")


def print_uncertain(results: CaptionResults[Any], num_photos: int, minimum: float) -> None:
    """Prints photos whose captions are less confident than the minimum, and their number."""
    from effcap.utils.progress import print_line

    for photo, (best, *_) in results.uncertain:
        print_line(f"uncertain: {photo}: {best.text} ({best.confidence:.2f})")
    if results.uncertain:
        print_line(
            f"{len(results.uncertain)} of {num_photos} photos have a confidence below {minimum:g}"
        )


def print_missing(captions: Sequence[tuple[Any, Sequence[Caption | PlaylistCaption]]]) -> None:
    """Prints the inputs whose best captions lack words of --include, and their number."""
    from effcap.utils.progress import print_line

    missing = [(name, best.missing) for name, (best, *_) in captions if best.missing]
    for name, groups in missing:
        print_line(f"without {', '.join(groups)}: {name}")
    if missing:
        print_line(
            f"{len(missing)} of {len(captions)} captions lack words of --include; more beams or "
            "--max-new-tokens may find better ones"
        )


def print_skipped(skipped: Sequence[tuple[Any, str]], num_photos: int, reason: str) -> None:
    """Prints skipped photos with the reason of each, and their number.

    Args:
        skipped: (photo, reason) pairs.
        num_photos: number of all photos.
        reason: common reason, such as "cannot be read".
    """
    from effcap.utils.progress import print_line

    for photo, text in skipped:
        print_line(f"skipped: {photo}: {text}")
    if skipped:
        print_line(f"{len(skipped)} of {num_photos} photos {reason}")
