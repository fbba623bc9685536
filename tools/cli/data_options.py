"""Options of caption files that several commands share."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypedDict

# Functions of `effcap.trainers` that clean captions, with their help.
CLEANINGS = {
    "tidy": "single spaces, a capital first letter, a full stop",
    "plain": "lower case, no punctuation but a full stop at the end, as for ALBEF and OPG",
}


class Columns(TypedDict):
    """Column names as arguments of `read_csv`."""

    image_column: str
    caption_column: str
    prefix_column: str


def add_images(group: Any) -> None:
    """Adds --images."""
    group.add_argument(
        "--images",
        type=Path,
        metavar="DIR",
        help="folder of the photos (default: folder of the file)",
    )


def add_columns(group: Any) -> None:
    """Adds --image-column, --caption-column and --prefix-column."""
    for column in ("image", "caption"):
        group.add_argument(
            f"--{column}-column",
            default=column,
            metavar="NAME",
            help=f"name of the CSV column with the {column}s",
        )
    group.add_argument(
        "--prefix-column",
        default="prefix",
        metavar="NAME",
        help="name of the CSV column with texts that the captions continue, if there is one",
    )


def add_cleaning(group: Any, note: str = "") -> None:
    """Adds --tidy and --plain.

    Args:
        group: parser or argument group.
        note: text after the help of both.
    """
    for name, text in CLEANINGS.items():
        group.add_argument(
            f"--{name}",
            action=argparse.BooleanOptionalAction,
            default=False,
            help=f"clean captions: {text}{note}",
        )


def columns(arguments: argparse.Namespace) -> Columns:
    """Returns the values of --image-column, --caption-column and --prefix-column."""
    return {
        "image_column": arguments.image_column,
        "caption_column": arguments.caption_column,
        "prefix_column": arguments.prefix_column,
    }


def caption_edit(arguments: argparse.Namespace) -> Callable[[str], str] | None:
    """Returns the function to apply to captions; None without --tidy and --plain.

    Raises:
        ValueError: both are given.
    """
    from effcap.trainers.data.caption_cleaning import plain, tidy

    if arguments.tidy and arguments.plain:
        raise ValueError("Give --tidy or --plain, not both; --no-tidy or --no-plain undoes one")
    if arguments.plain:
        return plain
    return tidy if arguments.tidy else None
