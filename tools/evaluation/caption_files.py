"""Reads files of captions to score, and matches the captions with references."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from os import PathLike
from typing import Any

from effcap.tools.evaluation.references import References
from effcap.tools.reports.tables import read_table
from effcap.trainers.data.example import one_line
from effcap.trainers.data.text_files import describe

FORMATS = (
    'a list of {"image_id", "caption"} as in COCO, or of {"image", "caption"}; several '
    'captions of a photo are a list under "captions"'
)
MAX_SHOWN = 3  # names in a message


@dataclass(frozen=True)
class PhotoCaptions:
    """Captions of a photo.

    Attributes:
        photo: COCO id or name of the photo.
        captions: captions, at least one.
        is_id: whether `photo` is a COCO id.
    """

    photo: str
    captions: tuple[str, ...]
    is_id: bool = False


@dataclass(frozen=True)
class MatchedCaptions:
    """Captions matched with references.

    Attributes:
        captions: captions by index of the photo in the references.
        missing: names of photos with references but without captions.
        extra: names or ids of photos with captions but without references.
    """

    captions: dict[int, PhotoCaptions]
    missing: list[str]
    extra: list[str]


def read_captions(path: str | PathLike[str]) -> list[PhotoCaptions]:
    """Reads captions in COCO's results format or a similar one, or a table of `effcap caption`.

    Raises:
        FileNotFoundError: the file does not exist.
        ValueError: the file has another format; the message names the first wrong entry.
    """
    entries = read_table(path)
    if not isinstance(entries, list) or not entries:
        raise ValueError(f"Expected in {path}: {FORMATS}. Received: {describe(entries)}")
    captions = []
    for number, entry in enumerate(entries):
        parsed = parse_entry(entry)
        if parsed is None:
            received = one_line(json.dumps(entry, ensure_ascii=False))
            raise ValueError(
                f"Expected in {path}: {FORMATS}. Received: entry [{number}], {received}"
            )
        captions.append(parsed)
    return captions


def parse_entry(entry: Any) -> PhotoCaptions | None:
    """Returns the captions in an entry of a file; None for another format."""
    if not isinstance(entry, dict):
        return None
    photo_keys = [key for key in ("image_id", "image") if key in entry]
    caption_keys = [key for key in ("caption", "captions") if key in entry]
    if len(photo_keys) != 1 or len(caption_keys) != 1:
        return None
    photo, captions = entry[photo_keys[0]], entry[caption_keys[0]]
    is_id = photo_keys[0] == "image_id"
    if isinstance(photo, bool) or not isinstance(photo, int | str if is_id else str) or photo == "":
        return None
    if caption_keys[0] == "caption":
        captions = [captions]
    if not isinstance(captions, list) or not captions:
        return None
    if not all(isinstance(caption, str) for caption in captions):
        return None
    return PhotoCaptions(str(photo), tuple(captions), is_id)


def as_captions(captions: Mapping[str, str | Sequence[str]]) -> list[PhotoCaptions]:
    """Returns captions by name of the photo as a list of `PhotoCaptions`."""
    return [
        PhotoCaptions(photo, (texts,) if isinstance(texts, str) else tuple(texts))
        for photo, texts in captions.items()
    ]


def match_captions(captions: Sequence[PhotoCaptions], references: References) -> MatchedCaptions:
    """Matches captions with the references of the same photos.

    Raises:
        ValueError: a photo occurs twice, or no photo has both.
    """
    matched: dict[int, PhotoCaptions] = {}
    extra = []
    for entry in captions:
        index = references.find(entry.photo, entry.is_id)
        if index is None:
            extra.append(entry.photo)
        elif index in matched:
            name, other = entry.photo, matched[index].photo
            twice = f"{name} twice" if name == other else f"{name} and {other}, which are the same"
            raise ValueError(
                'Expected each photo once, with several captions as a list under "captions". '
                f"Received: {twice}"
            )
        else:
            matched[index] = entry
    if not matched:
        names = [photo.name for photo in references.photos[:MAX_SHOWN]]
        raise ValueError(
            f"Expected captions of photos with references, such as {', '.join(names)}. "
            f"Received: captions of other photos, such as {', '.join(extra[:MAX_SHOWN])}"
        )
    missing = [photo.name for i, photo in enumerate(references.photos) if i not in matched]
    return MatchedCaptions(matched, missing, extra)
