"""CSV files of photos and captions: one caption per line, a photo on as many lines as it has."""

from __future__ import annotations

import csv
from collections.abc import Callable, Iterable
from os import PathLike
from pathlib import Path
from typing import TYPE_CHECKING, Any

from effcap.trainers.data.example import CaptionedPhoto, Problem, one_line
from effcap.trainers.data.text_files import (
    Collector,
    lines_of,
    photo_folder,
    read_several,
    read_text,
)

if TYPE_CHECKING:
    from effcap.captioner import Captioner
    from effcap.trainers.batching.in_memory import CaptionBatches

SEPARATORS = (";", "\t", "|")  # that people mistake for commas

csv.field_size_limit(2**24)


def read_csv(
    path: str | PathLike,
    images: str | PathLike | None = None,
    image_column: str = "image",
    caption_column: str = "caption",
    edit: Callable[[str], str] | None = None,
) -> tuple[list[CaptionedPhoto], list[Problem]]:
    """Photos with their captions, in the order in which they first appear.

    Spaces around a photo's name and around a caption are dropped. Different spellings of a path
    (`a.jpg`, `./a.jpg`) are one photo. A caption that a photo has twice counts twice.

    Args:
        path: a CSV file in UTF-8 with a header.
        images: folder that the image column is relative to; the CSV's own by default.
        image_column, caption_column: names of the columns.
        edit: applied to every caption, such as `tidy`.

    Returns:
        (photos, problems): lines with no image, an empty caption, too many or too few fields are
        problems, named by line. Whether the files exist is for `check_photos` to see.

    Raises:
        FileNotFoundError: without such a file or folder.
        ValueError: when it is no CSV in UTF-8, or lacks a column or has it twice.
    """
    path = Path(path)
    text = read_text(path, "CSV")
    found = Collector(photo_folder(path, images), edit)
    reader = csv.reader(lines_of(text), strict=True, skipinitialspace=True)
    line = 0
    try:
        rows = filter(None, reader)  # without blank lines
        columns = [name.strip() for name in next(rows, [])]
        image_at, caption_at = _find_columns(columns, (image_column, caption_column), path)
        for row in rows:
            line = reader.line_num
            where = f"{path}, line {line}"
            if len(row) == len(columns):
                found.add(where, row[image_at], [row[caption_at]])
            else:
                reason = f"expected {len(columns)} fields (text with commas belongs in quotes)"
                found.problems.append(Problem(where, f"{reason}. Received: {len(row)}"))
    except csv.Error as error:
        raise ValueError(
            f"Expected a CSV file. Received: {path}, which after line {line} is not: {error}; is "
            "a quote never closed, or one inside a field not doubled?"
        ) from error
    return found.photos(), found.problems


def _find_columns(columns: list[str], wanted: tuple[str, str], path: Path) -> list[int]:
    """Where the columns for images and captions stand."""
    if wanted[0] == wanted[1]:
        raise ValueError(f"Expected two columns. Received: {wanted[0]!r} for images and captions")
    missing = [name for name in wanted if name not in columns]
    twice = [name for name in wanted if columns.count(name) > 1]
    if not missing and not twice:
        return [columns.index(name) for name in wanted]
    received = one_line(", ".join(columns)) or "none"
    if twice:
        raise ValueError(
            f"Expected a column {' and '.join(map(repr, twice))} once in {path}. "
            f"Received columns: {received}"
        )
    separator = next((s for s in SEPARATORS if len(columns) == 1 and s in columns[0]), None)
    hint = f"; it is separated by {separator!r}, save it with commas" if separator else ""
    raise ValueError(
        f"Expected a column {' and '.join(map(repr, missing))} in {path}. "
        f"Received columns: {received}{hint}"
    )


def read_csvs(
    paths: Iterable[str | PathLike], *arguments: Any
) -> tuple[list[CaptionedPhoto], list[Problem]]:
    """`read_csv` for several files with the same arguments; a photo in several of them is one."""
    return read_several(lambda path: read_csv(path, *arguments), paths)


def csv_dataset(
    path: str | PathLike | Iterable[str | PathLike],
    images: str | PathLike | None,
    captioner: Captioner,
    *,
    image_column: str = "image",
    caption_column: str = "caption",
    edit: Callable[[str], str] | None = None,
    max_bad: float = 0.01,
    **options: Any,
) -> CaptionBatches:
    """Batches for `captioner.fit` from a CSV file of photos and captions.

    Every photo is decoded once, so that what cannot be used is known, and left out with a warning
    that names it, before training begins.

    Args:
        path: a CSV file in UTF-8 with a header, or several.
        images: folder that the image column is relative to; the CSV's own by default.
        captioner: whose tokenizer, image size and fit to use.
        image_column, caption_column: names of the columns.
        edit: applied to every caption, such as `effcap.trainers.tidy`.
        max_bad: the share of captions that may have to be left out.
        options: of `CaptionBatches`, such as `batch_size=32`, `shuffle=True`, `seed=0`; and
            `mirror=True`, `crop=0.6`, `colour=0.3` to vary photos (see `Augmentation`).

    Returns:
        `CaptionBatches`, with what had to be left out in its `problems`.

    Raises:
        FileNotFoundError, ValueError: as `read_csv`.
        TooManyProblems: when more than `max_bad` of the captions cannot be used.

    Example:
        >>> data = csv_dataset("train.csv", "photos", captioner, batch_size=16)
        >>> captioner.compile()
        >>> captioner.fit(data, epochs=3)
    """
    from effcap.trainers.data.preparation import dataset

    paths = [path] if isinstance(path, str | PathLike) else path
    data = read_csvs(paths, images, image_column, caption_column, edit)
    return dataset("CSV", data, captioner, max_bad=max_bad, **options)
