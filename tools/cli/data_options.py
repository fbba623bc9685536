"""Options of caption files that several commands share."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypedDict


class Columns(TypedDict):
    """Column names as arguments of `read_csv`."""

    image_column: str
    caption_column: str


def add_images(group: Any) -> None:
    """Adds --images."""
    group.add_argument(
        "--images",
        type=Path,
        metavar="DIR",
        help="folder of the photos (default: folder of the file)",
    )


def add_columns(group: Any) -> None:
    """Adds --image-column and --caption-column."""
    for column in ("image", "caption"):
        group.add_argument(
            f"--{column}-column",
            default=column,
            metavar="NAME",
            help=f"name of the CSV column with the {column}s",
        )


def add_tidy(group: Any) -> None:
    """Adds --tidy."""
    group.add_argument(
        "--tidy",
        action=argparse.BooleanOptionalAction,
        default=False,
        help="clean captions: single spaces, a capital first letter, a full stop",
    )


def columns(arguments: argparse.Namespace) -> Columns:
    """Returns the values of --image-column and --caption-column."""
    return {
        "image_column": arguments.image_column,
        "caption_column": arguments.caption_column,
    }


def caption_edit(arguments: argparse.Namespace) -> Callable[[str], str] | None:
    """Returns the function to apply to captions; None without --tidy."""
    from effcap.trainers.data.example import tidy

    return tidy if arguments.tidy else None
