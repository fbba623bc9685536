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


COLUMNS = ("image_column", "caption_column", "prefix_column")


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


def add_columns(group: Any, table: str = "CSV ") -> None:
    """Adds --image-column, --caption-column and --prefix-column.

    Args:
        group: parser or argument group.
        table: kind of the table before "column" in the help; "" for data sets.
    """
    usual = {"image": "image, or another usual name", "caption": "text, caption or the like"}
    for column in ("image", "caption"):
        default = column if table else usual[column]
        group.add_argument(
            f"--{column}-column",
            metavar="NAME",
            help=f"name of the {table}column with the {column}s (default: {default})",
        )
    group.add_argument(
        "--prefix-column",
        metavar="NAME",
        help=f"name of the {table}column with texts that the captions continue, if there is one "
        "(default: prefix)",
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
    """Returns the columns of CSV files, by their options or defaults."""
    return {
        "image_column": arguments.image_column or "image",
        "caption_column": arguments.caption_column or "caption",
        "prefix_column": arguments.prefix_column or "prefix",
    }


def given_columns(arguments: argparse.Namespace) -> dict[str, str]:
    """Returns the values of --image-column, --caption-column and --prefix-column that are given."""
    return {name: value for name in COLUMNS if (value := getattr(arguments, name)) is not None}


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
