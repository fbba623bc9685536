"""Reads JSON files of captions: COCO annotations, lists of records, and JSON Lines."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable
from itertools import islice
from os import PathLike
from pathlib import Path
from typing import Any, TypeGuard

from effcap.trainers.data.example import Example, Problem
from effcap.trainers.data.photos import PhotoDataset
from effcap.trainers.data.text_files import (
    CaptionTable,
    describe,
    photo_folder,
    read_files,
    read_text,
    split_lines,
)

FORMATS = (
    'COCO captions {"images": [{"id", "file_name"}], "annotations": [{"image_id", "caption"}]}, '
    'a list [{"image", "caption" or "text"}], or one such record per line'
)
FILE_NAME = "file_name"  # names the photo in an image folder's metadata
METADATA_CAPTIONS = ("text", "caption", "captions")  # keys of captions there, the first one counts
NUM_PROBED_LINES = 10  # lines that decide whether a file is JSON Lines


def read_json(
    paths: str | PathLike[str] | Iterable[str | PathLike[str]],
    images: str | PathLike[str] | None = None,
    *,
    edit: Callable[[str], str] | None = None,
) -> PhotoDataset:
    """Reads photos and captions from JSON files.

    The format is detected from the content: COCO's `captions_*.json`, with `images` and
    `annotations`; a list of records with `image` and either `caption` or `text`, a string or a list
    of strings; or one such record per line (JSON Lines). A record of an image folder's
    `metadata.jsonl` has `file_name` and the first of `text`, `caption` and `captions`. A record or
    annotation may have a `prefix` that its captions continue. Other keys are ignored. The other
    rules are those of `read_csv`.

    Args:
        paths: a JSON file in UTF-8, or several.
        images: folder that the photos' names are relative to; by default the folder of the file.
        edit: function applied to every caption, such as `tidy` or `plain`; None for no change.

    Returns:
        The photos in the order of their first records. Records without an image or caption are
        `problems`. Photo files are checked by `PhotoDataset.batches`.

    Raises:
        FileNotFoundError: a file or the folder does not exist.
        ValueError: a file is not JSON in UTF-8, or has another format.

    Example:
        >>> dataset = read_json("captions_train2017.json", "train2017")
    """
    return PhotoDataset(*read_files(lambda path: _read_file(path, images, edit), paths))


def _read_file(
    path: Path, images: str | PathLike[str] | None, edit: Callable[[str], str] | None
) -> tuple[list[Example], list[Problem]]:
    text = read_text(path, "JSON")
    table = CaptionTable(photo_folder(path, images), edit)
    if _is_json_lines(text):
        add_lines(table, path, text)
        return table.examples(), table.problems
    try:
        content = _parse(text)
    except ValueError as error:
        raise ValueError(
            f"Expected JSON: {FORMATS}. Received: {path}, which is not JSON: {error}"
        ) from error
    if isinstance(content, list):
        for i, record in enumerate(content):
            _add_record(table, f"{path}, [{i}]", record)
    elif isinstance(content, dict) and all(
        isinstance(content.get(key), list) for key in ("images", "annotations")
    ):
        _add_coco(table, path, content)
    else:
        raise ValueError(f"Expected {FORMATS} in {path}. Received: {describe(content)}")
    return table.examples(), table.problems


class _RepeatedKey:
    """A JSON object that has a key twice; JSON does not define which one counts."""

    def __init__(self, key: str):
        self.key = key

    def __repr__(self) -> str:
        return f"an object with the key {self.key!r} twice"


def _make_object(pairs: list[tuple[str, Any]]) -> dict[str, Any] | _RepeatedKey:
    record = dict(pairs)
    if len(record) == len(pairs):
        return record
    keys = [key for key, _ in pairs]
    return _RepeatedKey(next(key for key in keys if keys.count(key) > 1))


def _parse(text: str) -> Any:
    """Parses JSON; raises a ValueError if it is invalid."""
    try:
        return json.loads(text, object_pairs_hook=_make_object)
    except RecursionError:
        raise ValueError("brackets nested too deeply") from None


def _is_json_lines(text: str) -> bool:
    lines = islice(filter(str.strip, split_lines(text)), NUM_PROBED_LINES)
    return not text.lstrip().startswith("[") and any(map(_is_record, lines))


def _is_record(line: str) -> bool:
    try:
        record = _parse(line)
    except ValueError:
        return False
    return isinstance(record, dict) and not {"image", FILE_NAME}.isdisjoint(record)


def add_lines(table: CaptionTable, path: Path, text: str) -> None:
    """Adds the records of a JSON Lines file to a table.

    Args:
        table: table of captions.
        path: the file.
        text: its contents.
    """
    for number, line in enumerate(split_lines(text), 1):
        if not line.strip():
            continue
        where = f"{path}, line {number}"
        try:
            _add_record(table, where, _parse(line))
        except ValueError as error:
            table.problems.append(Problem(where, f"expected JSON. Received: {error}"))


def _add_record(table: CaptionTable, where: str, record: Any) -> None:
    image_key, caption_key = _find_keys(record)
    if caption_key is None or image_key not in record:
        reason = "expected an object with image and either caption or text"
        table.problems.append(Problem(where, f"{reason}. Received: {describe(record)}"))
        return
    texts = record[caption_key]
    if not isinstance(texts, list):
        texts = [texts]
    if not texts:
        reason = f"expected at least one {caption_key}. Received: an empty list"
        table.problems.append(Problem(where, reason))
    table.add(where, record.get(image_key), texts, record.get("prefix"))


def _find_keys(record: Any) -> tuple[str, str | None]:
    """Returns the keys of a record's photo and captions; None without, or with two, for these."""
    if not isinstance(record, dict):
        return "image", None
    if FILE_NAME in record:  # may have any other columns
        return FILE_NAME, next((key for key in METADATA_CAPTIONS if key in record), None)
    keys = [key for key in ("caption", "text") if key in record]
    return "image", keys[0] if len(keys) == 1 else None


def _add_coco(table: CaptionTable, path: Path, content: dict[str, Any]) -> None:
    names: dict[int | str, Any] = {}
    for i, image in enumerate(content["images"]):
        if not isinstance(image, dict) or not _is_id(image.get("id")) or "file_name" not in image:
            reason = f"expected an object with id and file_name. Received: {describe(image)}"
        elif names.setdefault(image["id"], image["file_name"]) != image["file_name"]:
            reason = f"expected a unique id. Received: {image['id']!r}, which another image has too"
            names[image["id"]] = None  # ambiguous
        else:
            continue
        table.problems.append(Problem(f"{path}, images[{i}]", reason, 0))
    for i, annotation in enumerate(content["annotations"]):
        where = f"{path}, annotations[{i}]"
        image_id = annotation.get("image_id") if isinstance(annotation, dict) else None
        if not _is_id(image_id) or "caption" not in annotation:
            received = describe(annotation)
            reason = f"expected an object with image_id and caption. Received: {received}"
        elif names.get(image_id) is None:
            reason = f"expected the id of an image as image_id. Received: {image_id!r}"
        else:
            caption, prefix = annotation["caption"], annotation.get("prefix")
            table.add(where, names[image_id], [caption], prefix)
            continue
        table.problems.append(Problem(where, reason))


def coco_names(text: str) -> dict[str, str]:
    """Returns the photos' names by COCO id, from the text of a file; {} for other formats."""
    try:
        content = json.loads(text)
    except ValueError:  # JSON Lines
        return {}
    images = content.get("images") if isinstance(content, dict) else None
    return {
        str(image["id"]): image["file_name"].strip()
        for image in images or ()
        if isinstance(image, dict) and "id" in image and isinstance(image.get("file_name"), str)
    }


def _is_id(value: Any) -> TypeGuard[int | str]:
    return isinstance(value, int | str) and not isinstance(value, bool)
