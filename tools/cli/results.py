"""Files of references and of captions to score, and which belong together."""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from effcap.trainers import CaptionedPhoto

FORM = (
    'a list of {"image_id", "caption"} as COCO has it, or of {"image", "caption"}; several '
    'captions of a photo are a list under "captions"'
)
SHOWN = 3  # names in a message


class References:
    """Photos with what people said of them, found by COCO's id or by name.

    Args:
        photos: with their references.
        ids: the photo's place by its COCO id, as text.
    """

    def __init__(self, photos: Sequence[CaptionedPhoto], ids: dict[str, int]):
        self.photos, self.ids = photos, ids
        self._paths: dict[str, int] = {}
        self._names: dict[str, list[int]] = {}  # file names, which several may have
        for place, photo in enumerate(photos):
            self._paths[photo.name] = self._paths[os.path.abspath(photo.path)] = place
            self._names.setdefault(photo.path.name, []).append(place)

    def find(self, result: Result) -> int | None:
        """The photo's place; None where there is no such photo.

        Raises:
            ValueError: when references have no ids, or several photos have that name.
        """
        if result.by_id:
            if not self.ids:
                raise ValueError(
                    "Expected references in COCO's format, which have ids, for captions with "
                    'image_id; name photos by "image" otherwise. Received: references without ids'
                )
            return self.ids.get(result.image)
        path = os.path.normpath(result.image.strip())
        for name in (os.path.abspath(path), path):
            if name in self._paths:
                return self._paths[name]
        places = self._names.get(os.path.basename(path), [])
        if len(places) > 1:
            raise ValueError(
                f"Expected a name that one photo has. Received: {result.image}, which may be "
                f"{' or '.join(self.photos[place].name for place in places[:SHOWN])}"
            )
        return places[0] if places else None


@dataclass(frozen=True)
class Result:
    """The captions of a photo.

    Attributes:
        image: its COCO id as text, or its name.
        by_id: whether that is an id.
        captions: one or several.
    """

    image: str
    by_id: bool
    captions: tuple[str, ...]


def read_references(
    paths: Iterable[Path],
    images: Path | None = None,
    columns: tuple[str, str] = ("image", "caption"),
) -> References:
    """References from CSV, COCO's JSON, or JSON of photos, told by what is in the files.

    What cannot be used is told on stderr.

    Args:
        paths: the files.
        images: folder of the photos, which need not be there; the files' own by default.
        columns: of a CSV file.

    Raises:
        FileNotFoundError: without such a file or folder.
        ValueError: for files of another form, without references, or with the same id twice.
        TooManyProblems: when more than 1 % of the references cannot be used.
    """
    from effcap.trainers.data.csv_reader import read_csv
    from effcap.trainers.data.example import check_share
    from effcap.trainers.data.json_reader import coco_names, read_json_captions
    from effcap.trainers.data.text_files import read_several, read_text
    from effcap.utils.progress import say

    contents = {}

    def read(path: Path):
        text = read_text(path, "CSV or JSON").lstrip()
        if not text.startswith(("[", "{")):
            return read_csv(path, images, *columns)
        data = read_json_captions(path, images)
        contents[path] = text
        return data

    photos, problems = read_several(read, paths)
    total = sum(len(photo.captions) for photo in photos) + sum(p.captions for p in problems)
    if not total:
        raise ValueError(f"Expected references. Received: none in {', '.join(map(str, paths))}")
    summary = check_share("reference", problems, total, 0.01)
    if summary:
        say(summary)
    places = {os.path.abspath(photo.path): place for place, photo in enumerate(photos)}
    ids: dict[str, int] = {}
    for path, text in contents.items():
        for image, name in coco_names(text).items():
            folder = path.parent if images is None else images
            place = places.get(os.path.abspath(Path(folder, name)))
            if place is not None and ids.setdefault(image, place) != place:
                raise ValueError(f"Expected an id for one photo. Received: {image} twice in {path}")
    return References(photos, ids)


def read_results(path: Path) -> list[Result]:
    """The captions of a file, made by whomever.

    Raises:
        FileNotFoundError: without such a file.
        ValueError: when it has another form, named by the entry.
    """
    from effcap.trainers.data.text_files import describe, read_text

    text = read_text(path, "JSON")
    try:
        entries = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise ValueError(f"Expected JSON in {path}: {FORM}. Received: {error}") from None
    if not isinstance(entries, list) or not entries:
        raise ValueError(f"Expected in {path}: {FORM}. Received: {describe(entries)}")
    results = []
    for number, entry in enumerate(entries):
        result = _result(entry)
        if result is None:
            raise ValueError(
                f"Expected in {path}: {FORM}. Received: entry [{number}], {_told(entry)}"
            )
        results.append(result)
    return results


def _result(entry: Any) -> Result | None:
    """None for what is no caption of a photo."""
    if not isinstance(entry, dict):
        return None
    images = [key for key in ("image_id", "image") if key in entry]
    texts = [key for key in ("caption", "captions") if key in entry]
    if len(images) != 1 or len(texts) != 1:
        return None
    image, captions = entry[images[0]], entry[texts[0]]
    by_id = images[0] == "image_id"
    if isinstance(image, bool) or not isinstance(image, int | str if by_id else str) or image == "":
        return None
    captions = [captions] if texts[0] == "caption" else captions
    if not isinstance(captions, list) or not captions:
        return None
    if not all(isinstance(caption, str) for caption in captions):
        return None
    return Result(str(image), by_id, tuple(captions))


def _told(entry: Any) -> str:
    from effcap.trainers.data.example import one_line

    return one_line(json.dumps(entry, ensure_ascii=False))


def match(
    results: Sequence[Result], references: References
) -> tuple[dict[int, Result], list[str], list[str]]:
    """Captions and references of the same photos.

    Returns:
        ({the photo's place: its captions}, photos without captions, captions without references).

    Raises:
        ValueError: when a photo comes twice, or when nothing belongs together.
    """
    found: dict[int, Result] = {}
    extra = []
    for result in results:
        place = references.find(result)
        if place is None:
            extra.append(result.image)
        elif place in found:
            name, other = result.image, found[place].image
            raise ValueError(
                f"Expected each photo once (several captions of one are a list under "
                f'"captions"). Received: {name} {"twice" if name == other else f"and {other}"}'
            )
        else:
            found[place] = result
    if not found:
        names = [photo.name for photo in references.photos[:SHOWN]]
        raise ValueError(
            f"Expected captions of photos with references, such as {', '.join(names)}. "
            f"Received: captions of others, such as {', '.join(extra[:SHOWN])}"
        )
    missing = [photo.name for place, photo in enumerate(references.photos) if place not in found]
    return found, missing, extra
