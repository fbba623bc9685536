"""JSON files of photos and captions: COCO's, lists of records, and a record per line."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable
from itertools import islice
from os import PathLike
from pathlib import Path
from typing import TYPE_CHECKING, Any

from effcap.trainers.data.example import CaptionedPhoto, Problem
from effcap.trainers.data.text_files import (
    Collector,
    describe,
    lines_of,
    photo_folder,
    read_several,
    read_text,
)

if TYPE_CHECKING:
    from effcap.captioner import Captioner
    from effcap.trainers.batching.in_memory import CaptionBatches

FORMS = (
    'COCO captions {"images": [{"id", "file_name"}], "annotations": [{"image_id", "caption"}]}, '
    'a list [{"image", "caption" or "text"}], or such a record per line'
)
LOOKED_AT = 10  # lines by which a file with a record per line is told


def read_json_captions(
    path: str | PathLike,
    images: str | PathLike | None = None,
    edit: Callable[[str], str] | None = None,
) -> tuple[list[CaptionedPhoto], list[Problem]]:
    """Photos with their captions, in the order in which they first appear.

    The form of the file is told by its content: COCO's `captions_*.json`, with `images` and
    `annotations`; a list of records with `image` and either `caption` or `text`, a text or a list
    of texts; or one such record per line (JSON Lines). Other keys are passed over. In all else as
    `read_csv`.

    Args:
        path: a JSON file in UTF-8.
        images: folder that the images' names are relative to; the JSON file's own by default.
        edit: applied to every caption, such as `tidy`.

    Returns:
        (photos, problems): records without an image or a caption are problems, named by index or
        line. Whether the files exist is for `check_photos` to see.

    Raises:
        FileNotFoundError: without such a file or folder.
        ValueError: when it is no JSON in UTF-8, or of another form.
    """
    path = Path(path)
    text = read_text(path, "JSON")
    found = Collector(photo_folder(path, images), edit)
    if not text.lstrip().startswith("[") and any(map(_is_record, _first_lines(text))):
        for number, line in enumerate(lines_of(text), 1):
            if not line.strip():
                continue
            where = f"{path}, line {number}"
            try:
                _add_record(found, where, _parse(line))
            except ValueError as error:
                found.problems.append(Problem(where, f"expected JSON. Received: {error}"))
        return found.photos(), found.problems
    try:
        content = _parse(text)
    except ValueError as error:
        raise ValueError(
            f"Expected JSON: {FORMS}. Received: {path}, which is not: {error}"
        ) from error
    if isinstance(content, list):
        for number, record in enumerate(content):
            _add_record(found, f"{path}, [{number}]", record)
    elif isinstance(content, dict) and all(
        isinstance(content.get(key), list) for key in ("images", "annotations")
    ):
        _add_coco(found, path, content)
    else:
        raise ValueError(f"Expected {FORMS} in {path}. Received: {describe(content)}")
    return found.photos(), found.problems


class _Repeated:
    """An object with a key twice, of which JSON says not which one counts."""

    def __init__(self, key: str):
        self.key = key

    def __repr__(self) -> str:
        return f"an object with the key {self.key!r} twice"


def _object(pairs: list[tuple[str, Any]]) -> dict | _Repeated:
    record = dict(pairs)
    if len(record) == len(pairs):
        return record
    keys = [key for key, _ in pairs]
    return _Repeated(next(key for key in keys if keys.count(key) > 1))


def _parse(text: str) -> Any:
    """The content of JSON; ValueError where it is none."""
    try:
        return json.loads(text, object_pairs_hook=_object)
    except RecursionError:
        raise ValueError("brackets nested too deeply") from None


def _first_lines(text: str) -> Iterable[str]:
    return islice(filter(str.strip, lines_of(text)), LOOKED_AT)


def _is_record(line: str) -> bool:
    try:
        record = _parse(line)
    except ValueError:
        return False
    return isinstance(record, dict) and "image" in record


def _add_record(found: Collector, where: str, record: Any) -> None:
    keys = [key for key in ("caption", "text") if isinstance(record, dict) and key in record]
    if len(keys) != 1:
        reason = "expected an object with image and either caption or text"
        found.problems.append(Problem(where, f"{reason}. Received: {describe(record)}"))
        return
    texts = record[keys[0]]
    if not isinstance(texts, list):
        texts = [texts]
    if not texts:
        reason = f"expected at least one {keys[0]}. Received: an empty list"
        found.problems.append(Problem(where, reason))
    found.add(where, record.get("image"), texts)


def _add_coco(found: Collector, path: Path, content: dict) -> None:
    names: dict[int | str, Any] = {}
    for number, image in enumerate(content["images"]):
        if not isinstance(image, dict) or not _is_id(image.get("id")) or "file_name" not in image:
            reason = f"expected an object with id and file_name. Received: {describe(image)}"
        elif names.setdefault(image["id"], image["file_name"]) != image["file_name"]:
            reason = f"expected an id of its own. Received: {image['id']!r}, which another has, too"
            names[image["id"]] = None  # which of them is meant?
        else:
            continue
        found.problems.append(Problem(f"{path}, images[{number}]", reason, 0))
    for number, annotation in enumerate(content["annotations"]):
        where = f"{path}, annotations[{number}]"
        image = annotation.get("image_id") if isinstance(annotation, dict) else None
        if not _is_id(image) or "caption" not in annotation:
            received = describe(annotation)
            reason = f"expected an object with image_id and caption. Received: {received}"
        elif names.get(image) is None:
            reason = f"expected an image_id out of images. Received: {image!r}"
        else:
            found.add(where, names[image], [annotation["caption"]])
            continue
        found.problems.append(Problem(where, reason))


def coco_names(text: str) -> dict[str, str]:
    """Photos' names by their COCO ids, from a file's text; none for JSON of another form."""
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


def _is_id(value: Any) -> bool:
    return isinstance(value, int | str) and not isinstance(value, bool)


def read_jsons(
    paths: Iterable[str | PathLike], *arguments: Any
) -> tuple[list[CaptionedPhoto], list[Problem]]:
    """`read_json_captions` for several files; a photo in several of them is one."""
    return read_several(lambda path: read_json_captions(path, *arguments), paths)


def json_dataset(
    path: str | PathLike | Iterable[str | PathLike],
    images: str | PathLike | None,
    captioner: Captioner,
    *,
    edit: Callable[[str], str] | None = None,
    max_bad: float = 0.01,
    **options: Any,
) -> CaptionBatches:
    """Batches for `captioner.fit` from a JSON file of photos and captions; see `csv_dataset`.

    Args:
        path: a file as `read_json_captions` takes it, or several.
        images: folder that the images' names are relative to; the JSON file's own by default.
        captioner, edit, max_bad, options: as in `csv_dataset`.

    Raises:
        FileNotFoundError, ValueError: as `read_json_captions`.
        TooManyProblems: when more than `max_bad` of the captions cannot be used.

    Example:
        >>> data = json_dataset("captions_train2017.json", "train2017", captioner)
    """
    from effcap.trainers.data.preparation import dataset

    paths = [path] if isinstance(path, str | PathLike) else path
    data = read_jsons(paths, images, edit)
    return dataset("JSON", data, captioner, max_bad=max_bad, **options)
