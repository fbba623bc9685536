"""CSV files of photos and captions: one caption per line, a photo on as many lines as it has."""

from __future__ import annotations

import csv
import warnings
from collections.abc import Callable, Iterable
from os import PathLike
from pathlib import Path
from typing import TYPE_CHECKING, Any

from effcap.trainers.captions import CaptionedPhoto, Problem

if TYPE_CHECKING:
    from effcap.captioner import Captioner
    from effcap.trainers.batches import CaptionBatches

csv.field_size_limit(2**24)


def read_csv(
    path: str | PathLike,
    images: str | PathLike | None = None,
    image_column: str = "image",
    caption_column: str = "caption",
    edit: Callable[[str], str] | None = None,
) -> tuple[list[CaptionedPhoto], list[Problem]]:
    """Photos with their captions, in the order in which they first appear.

    Spaces around a photo's name and around a caption are dropped.

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
        ValueError: when it is no CSV in UTF-8 or lacks a column.
    """
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"Expected a CSV file. Received: {path}, which is not there")
    folder = path.parent if images is None else Path(images)
    if not folder.is_dir():
        raise FileNotFoundError(f"Expected a folder of photos. Received: {folder}")
    captions: dict[str, list[str]] = {}
    problems = []
    line = 0
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            reader = csv.DictReader(file, strict=True, skipinitialspace=True)
            columns = reader.fieldnames or []
            missing = [name for name in (image_column, caption_column) if name not in columns]
            if missing:
                raise ValueError(
                    f"Expected a column {' and '.join(map(repr, missing))} in {path}. "
                    f"Received columns: {', '.join(columns) or 'none'}"
                )
            for row in reader:
                line = reader.line_num
                image, caption = row[image_column], row[caption_column]
                text = (edit(caption) if edit and caption else caption or "").strip()
                reason = None
                if None in row or None in row.values():
                    reason = f"expected {len(columns)} fields"
                elif not image.strip():
                    reason = "no image named"
                elif "\0" in image:
                    reason = "a null character in the image's name"
                elif not text:
                    reason = f"empty caption of {image}"
                if reason:
                    problems.append(Problem(f"{path}, line {line}", reason))
                else:
                    captions.setdefault(image.strip(), []).append(text)
    except (csv.Error, UnicodeDecodeError) as error:
        raise ValueError(
            f"Expected a CSV file in UTF-8. Received: {path}, which after line {line} is not: "
            f"{error}"
        ) from error
    photos = [CaptionedPhoto(folder / name, tuple(texts)) for name, texts in captions.items()]
    return photos, problems


def read_csvs(
    paths: Iterable[str | PathLike], *arguments: Any
) -> tuple[list[CaptionedPhoto], list[Problem]]:
    """`read_csv` for several files with the same arguments; a photo in several of them is one."""
    captions: dict[Path, tuple[str, ...]] = {}
    problems: list[Problem] = []
    for path in paths:
        photos, wrong = read_csv(path, *arguments)
        problems += wrong
        for photo in photos:
            captions[photo.path] = captions.get(photo.path, ()) + photo.captions
    return [CaptionedPhoto(path, texts) for path, texts in captions.items()], problems


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
        captioner: whose tokenizer and image size to use.
        image_column, caption_column: names of the columns.
        edit: applied to every caption, such as `effcap.trainers.tidy`.
        max_bad: the share of captions that may have to be left out.
        options: of `CaptionBatches`, such as `batch_size=32`, `shuffle=True`, `seed=0`; and
            `mirror=True` to mirror photos at random.

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
    from effcap.trainers.preparation import prepare

    paths = [path] if isinstance(path, str | PathLike) else list(path)
    data = read_csvs(paths, images, image_column, caption_column, edit)
    batches, summary = prepare("CSV", data, captioner, max_bad=max_bad, **options)
    if summary:
        warnings.warn(summary, stacklevel=2)
    return batches
