"""Reads reference captions and finds photos among them by COCO id, path or file name."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from os import PathLike
from pathlib import Path

from effcap.trainers.data.csv_reader import read_csv
from effcap.trainers.data.dataset import ExampleDataset
from effcap.trainers.data.example import Example, Problem, check_problems
from effcap.trainers.data.folder_reader import read_folder
from effcap.trainers.data.json_reader import coco_names, read_json
from effcap.trainers.data.text_files import as_paths, read_files, read_text

MAX_BAD = 0.01  # fraction of the references that may be unusable
MAX_SHOWN = 3  # names in an error message


class References:
    """Photos with reference captions.

    Args:
        photos: photos with their references.
        ids: index of the photo by COCO id; if there are none, names that are numbers count as ids.
        summary: summary of the references that cannot be used, or "".
    """

    def __init__(self, photos: Sequence[Example], ids: Mapping[str, int], summary: str = ""):
        self.photos, self.summary = photos, summary
        self.ids = ids or {x.name: i for i, x in enumerate(photos) if x.name.isdecimal()}
        self._by_path: dict[str, int] = {}
        self._by_file_name: dict[str, list[int]] = {}
        for index, photo in enumerate(photos):
            self._by_path[photo.name] = self._by_path[os.path.abspath(photo.path)] = index
            self._by_file_name.setdefault(photo.path.name, []).append(index)

    def find(self, photo: str, is_id: bool = False) -> int | None:
        """Returns the index of a photo; None if it has no references.

        Args:
            photo: COCO id, path or file name.
            is_id: whether `photo` is a COCO id.

        Raises:
            ValueError: the references have no ids, or several photos have the file name.
        """
        if is_id:
            if not self.ids:
                raise ValueError(
                    "Captions with image_id need references with ids, in COCO's format; otherwise "
                    'name photos by "image"'
                )
            return self.ids.get(photo)
        path = os.path.normpath(photo.strip())
        for name in (os.path.abspath(path), path):
            if name in self._by_path:
                return self._by_path[name]
        indices = self._by_file_name.get(os.path.basename(path), [])
        if len(indices) > 1:
            names = " or ".join(self.photos[index].name for index in indices[:MAX_SHOWN])
            raise ValueError(f"{photo} is ambiguous: it may be {names}")
        return indices[0] if indices else None


def read_references(
    paths: str | PathLike[str] | Sequence[str | PathLike[str]],
    images: str | PathLike[str] | None = None,
    *,
    image_column: str = "image",
    caption_column: str = "caption",
    prefix_column: str = "prefix",
) -> References:
    """Reads references from CSV files, COCO's JSON, JSON of photos, or folders (`read_folder`).

    The format of files is detected from their content.

    Args:
        paths: one or several files or folders.
        images: folder of the photos, which need not exist. None takes the folder of each file.
        image_column: column of the photo in CSV files.
        caption_column: column of the caption in CSV files.
        prefix_column: column of texts that captions continue in CSV files, if there is one.

    Raises:
        FileNotFoundError: a file or the folder does not exist.
        ValueError: a file has another format, there are no references, or an id occurs twice.
        TooManyProblems: more than 1 % of the references cannot be used.
    """
    texts: dict[Path, str] = {}

    def read(path: Path) -> tuple[list[Example], list[Problem]]:
        if path.is_dir():
            dataset = read_folder(path)
            return dataset.examples, dataset.problems
        text = read_text(path, "CSV or JSON").lstrip()
        if text.startswith(("[", "{")):
            texts[path] = text
            dataset = read_json(path, images)
        else:
            dataset = read_csv(
                path,
                images,
                image_column=image_column,
                caption_column=caption_column,
                prefix_column=prefix_column,
            )
        return dataset.examples, dataset.problems

    photos, problems = read_files(read, paths)
    summary = _summarize(photos, problems, ", ".join(map(str, as_paths(paths))))
    return References(photos, find_ids(photos, texts, images), summary)


def dataset_references(dataset: ExampleDataset) -> References:
    """Returns the captions of a dataset, such as that of `read_dataset`, as references.

    Raises:
        ValueError: there are no references.
        TooManyProblems: more than 1 % of the references cannot be used.
    """
    summary = _summarize(dataset.examples, dataset.problems, "the data set")
    return References(dataset.examples, {}, summary)


def _summarize(photos: Sequence[Example], problems: Sequence[Problem], source: str) -> str:
    """Returns a summary of the problems; raises an error without references."""
    total = sum(len(photo.captions) for photo in photos)
    total += sum(problem.num_captions for problem in problems)
    if not total:
        raise ValueError(f"There are no references in {source}")
    return check_problems("reference", problems, total, MAX_BAD)


def find_ids(
    photos: Sequence[Example], texts: Mapping[Path, str], images: str | PathLike[str] | None
) -> dict[str, int]:
    """Returns the indices of photos by COCO id, from the texts of JSON files.

    Raises:
        ValueError: an id belongs to several photos.
    """
    by_path = {os.path.abspath(photo.path): index for index, photo in enumerate(photos)}
    ids: dict[str, int] = {}
    for path, text in texts.items():
        for coco_id, name in coco_names(text).items():
            folder = path.parent if images is None else images
            index = by_path.get(os.path.abspath(Path(folder, name)))
            if index is not None and ids.setdefault(coco_id, index) != index:
                raise ValueError(f"The id {coco_id} occurs twice, the second time in {path}")
    return ids
