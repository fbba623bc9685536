"""Reads CSV files with one caption per line."""

from __future__ import annotations

import csv
from collections.abc import Callable, Iterable
from os import PathLike
from pathlib import Path

from effcap.trainers.data.example import Example, Problem, one_line
from effcap.trainers.data.photos import PhotoDataset
from effcap.trainers.data.text_files import (
    CaptionTable,
    photo_folder,
    read_files,
    read_text,
    split_lines,
)

CONTENTS = ("images", "captions", "prefixes")  # of the columns
PREFIX = "prefix"  # column that is used if it is there
OTHER_SEPARATORS = (";", "\t", "|")  # often used in place of commas

csv.field_size_limit(2**24)


def read_csv(
    paths: str | PathLike[str] | Iterable[str | PathLike[str]],
    images: str | PathLike[str] | None = None,
    *,
    image_column: str = "image",
    caption_column: str = "caption",
    prefix_column: str = "prefix",
    edit: Callable[[str], str] | None = None,
) -> PhotoDataset:
    """Reads photos and captions from CSV files.

    A photo has one line per caption. Spaces around names and captions are removed. Different
    spellings of a path (`a.jpg`, `./a.jpg`) are one photo, in one file or in several. Duplicate
    captions are kept.

    Args:
        paths: a CSV file in UTF-8 with a header, or several.
        images: folder that the image column is relative to; by default the folder of the CSV file.
        image_column: name of the column with the photos' names.
        caption_column: name of the column with the captions.
        prefix_column: name of a column with texts that the captions continue, such as "a picture
            of". Without a column "prefix", captions have none.
        edit: function applied to every caption, such as `tidy` or `plain`; None for no change.

    Returns:
        The photos in the order of their first lines. Lines without an image or caption, and lines
        with too many or too few fields, are `problems`. Photo files are checked by
        `PhotoDataset.batches`.

    Raises:
        FileNotFoundError: a file or the folder does not exist.
        ValueError: a file is not CSV in UTF-8, or a column is missing or occurs twice.

    Example:
        >>> dataset = read_csv("train.csv", "photos")
        >>> captioner.fit(dataset.batches(captioner, batch_size=16), epochs=3, shuffle=False)
    """
    columns = (image_column, caption_column, prefix_column)
    return PhotoDataset(*read_files(lambda path: _read_file(path, images, columns, edit), paths))


def _read_file(
    path: Path,
    images: str | PathLike[str] | None,
    wanted: tuple[str, ...],
    edit: Callable[[str], str] | None,
) -> tuple[list[Example], list[Problem]]:
    text = read_text(path, "CSV")
    table = CaptionTable(photo_folder(path, images), edit)
    add_rows(table, path, text, wanted)
    return table.examples(), table.problems


def add_rows(table: CaptionTable, path: Path, text: str, wanted: tuple[str, ...]) -> None:
    """Adds the rows of a CSV file to a table.

    Args:
        table: table of captions.
        path: the file.
        text: its contents.
        wanted: names of the image, caption and prefix columns. `PREFIX` may be missing.

    Raises:
        ValueError: the text is not CSV, or a column is missing or occurs twice.
    """
    reader = csv.reader(split_lines(text), strict=True, skipinitialspace=True)
    line = 0
    try:
        rows = filter(None, reader)  # skips blank lines
        columns = [name.strip() for name in next(rows, [])]
        if wanted[2] == PREFIX and PREFIX not in columns:
            wanted = wanted[:2]  # an optional column
        image_index, caption_index, *prefix_index = _find_columns(columns, wanted, path)
        for row in rows:
            line = reader.line_num
            where = f"{path}, line {line}"
            if len(row) == len(columns):
                prefix = row[prefix_index[0]] if prefix_index else None
                table.add(where, row[image_index], [row[caption_index]], prefix)
            else:
                reason = f"expected {len(columns)} fields (text with commas must be quoted)"
                table.problems.append(Problem(where, f"{reason}. Received: {len(row)}"))
    except csv.Error as error:
        raise ValueError(
            f"Expected a CSV file. Received: {path}, with an error after line {line}: {error}; "
            "check for unclosed quotes, and for quotes inside a field, which must be doubled"
        ) from error


def _find_columns(columns: list[str], wanted: tuple[str, ...], path: Path) -> list[int]:
    """Returns the indices of the columns of images, captions and, if wanted, prefixes."""
    for i, name in enumerate(wanted):
        if name in wanted[:i]:
            uses = f"{CONTENTS[wanted.index(name)]} and {CONTENTS[i]}"
            raise ValueError(f"Expected different columns. Received: {name!r} for {uses}")
    missing = [name for name in wanted if name not in columns]
    repeated = [name for name in wanted if columns.count(name) > 1]
    if not missing and not repeated:
        return [columns.index(name) for name in wanted]
    received = one_line(", ".join(columns)) or "none"
    if repeated:
        raise ValueError(
            f"Expected one column {' and '.join(map(repr, repeated))} in {path}. "
            f"Received columns: {received}"
        )
    separator = next((s for s in OTHER_SEPARATORS if len(columns) == 1 and s in columns[0]), None)
    hint = f"; its separator is {separator!r}, save it with commas" if separator else ""
    raise ValueError(
        f"Expected a column {' and '.join(map(repr, missing))} in {path}. "
        f"Received columns: {received}{hint}"
    )
