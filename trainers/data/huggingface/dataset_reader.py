"""Reads photos and captions from data sets of the Hugging Face hub and Parquet files."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Callable, Hashable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from os import PathLike
from pathlib import Path
from typing import Any, NamedTuple

from effcap.trainers.data.csv_reader import PREFIX
from effcap.trainers.data.example import Example, Problem
from effcap.trainers.data.huggingface.arrow_table import read_schema, read_table
from effcap.trainers.data.huggingface.row_columns import find_columns
from effcap.trainers.data.huggingface.row_photos import PhotoColumn, RowPhoto
from effcap.trainers.data.huggingface.split_files import (
    FILES_SPLIT,
    HUB,
    SplitFiles,
    find_split,
)
from effcap.trainers.data.photos import PhotoDataset
from effcap.trainers.data.text_files import as_paths, edit_caption, find_fault
from effcap.utils.progress import track


def read_dataset(
    sources: str | PathLike[str] | Iterable[str | PathLike[str]],
    split: str | None = None,
    *,
    images: str | PathLike[str] | None = None,
    image_column: str | None = None,
    caption_column: str | Sequence[str] | None = None,
    prefix_column: str = PREFIX,
    edit: Callable[[str], str] | None = None,
) -> PhotoDataset:
    """Reads photos and captions from data sets of the Hugging Face hub or Parquet files.

    A photo is an image of the hub, `{"bytes", "path"}`, bytes, or a path; its captions are a text,
    a list of texts, or several columns. Rows with the same photo, with equal bytes and path, are
    one photo with all their captions. Photos stay in the files, which are converted once to Arrow
    files in the cache of `datasets` and memory-mapped. No code of a data set is run.

    Args:
        sources: `hf://USER/NAME` or `hf://USER/NAME@REVISION`, a Parquet file, a folder of Parquet
            files, or a pattern such as "data/train-*.parquet"; or several of these.
        split: name of the split, such as "train", "train[:90%]", "train+validation", or, with the
            name of a configuration, "en/train". Files and patterns have the split "train". None
            takes the only split.
        images: folder that paths of photos are relative to; by default the folder of the files.
        image_column: column of the photos. None takes the first of image, img, photo, picture and
            jpg, or the only column of images.
        caption_column: one or several columns of captions. None takes the first of text, caption,
            captions, sentences, sentence and description, or all of caption_0, caption_1, ....
        prefix_column: column of texts that the captions continue. Without a column "prefix",
            captions have none.
        edit: function applied to every caption, such as `tidy` or `plain`; None for no change.

    Returns:
        The photos in the order of their rows. Rows without a photo or caption are `problems`.
        Photos are checked by `PhotoDataset.batches`.

    Raises:
        FileNotFoundError: a file, folder or data set does not exist, or access is refused.
        ConnectionError: the hub cannot be reached, and the data are not in the cache.
        ValueError: there is no such split or column, or a file is damaged.
        OSError: there is not enough disk space.
        ImportError: the package `datasets` is not installed.

    Example:
        >>> dataset = read_dataset("hf://user/name", "train")
        >>> captioner.fit(dataset.batches(captioner, batch_size=16), epochs=3, shuffle=False)
    """
    if images is not None and not Path(images).is_dir():
        raise FileNotFoundError(f"Folder of photos not found: {images}")
    items = as_paths(sources)
    names = [os.fspath(item) for item in items]
    if repeated := next((name for name in names if names.count(name) > 1), None):
        raise ValueError(f"Expected different data sets. Received: {repeated} twice")
    table = _ExampleTable(edit)
    for item in items:
        files = find_split(item, split)
        schema = read_schema(files)
        columns = find_columns(schema, files.source, image_column, caption_column, prefix_column)
        content, time_ns = read_table(files, [schema.field(name) for name in columns.names])
        table.photos = PhotoColumn(content.column(columns.image), _label(files), time_ns)
        folder = files.folder if images is None else Path(images)
        captions = [_values(content.column(name)) for name in columns.captions]
        prefixes = None if columns.prefix is None else _values(content.column(columns.prefix))
        for row, (path, texts) in enumerate(
            zip(table.photos.paths(), zip(*captions, strict=True), strict=True)
        ):
            prefix = None if prefixes is None else next(prefixes)
            table.add(_Row(row, path, list(_flat(texts)), prefix), folder)
    return PhotoDataset(table.examples(), table.problems)


class _Row(NamedTuple):
    """A row: its number, the path of the photo, the captions and their prefix."""

    number: int
    path: str | None
    captions: list[Any]
    prefix: Any


class _Group(NamedTuple):
    """Rows of one photo, with their usable captions."""

    photo: Path | RowPhoto
    where: str
    path: str | None
    prefix: str
    captions: list[str]

    @property
    def stored(self) -> RowPhoto | None:
        """The photo, if it is in the data; None for a file."""
        return self.photo if isinstance(self.photo, RowPhoto) else None


class _ExampleTable:
    """Groups the rows of photos; `photos` is the column of those that are added."""

    photos: PhotoColumn

    def __init__(self, edit: Callable[[str], str] | None):
        self.edit = edit
        self.problems: list[Problem] = []
        self._groups: list[_Group] = []

    def add(self, row: _Row, folder: Path | None) -> None:
        """Adds a row, or problems.

        Args:
            row: the row.
            folder: folder that paths are relative to; None if there can be no files.
        """
        where = self.photos.name(row.number)
        if not row.captions:
            self.problems.append(Problem(where, "expected a caption. Received: none"))
            return
        photo, fault = self._find_photo(row, folder)
        if photo is None:
            self.problems.append(Problem(where, fault, len(row.captions)))
            return
        prefix = row.prefix or ""
        if prefix.strip() and (fault := find_fault(prefix) or ""):
            reason = f"expected a prefix. Received: {fault}"
            self.problems.append(Problem(where, reason, len(row.captions)))
            return
        usable = []
        for caption in row.captions:
            text, fault_of_caption = edit_caption(caption, self.edit)
            if fault_of_caption:
                reason = f"expected a caption. Received: {fault_of_caption}"
                self.problems.append(Problem(where, reason))
            else:
                usable.append(text)
        if usable:
            self._groups.append(_Group(photo, where, row.path, prefix.strip(), usable))

    def _find_photo(self, row: _Row, folder: Path | None) -> tuple[Path | RowPhoto | None, str]:
        """Returns the photo of a row, or None and why there is none."""
        if self.photos.sizes[row.number] >= 0:
            return self.photos.photo(row.number), ""
        path = (row.path or "").strip()
        if not path:
            return None, "expected a photo. Received: neither bytes nor a path"
        if fault := find_fault(path):
            return None, f"expected the path of a photo. Received: {fault}"
        if "://" in path:
            return None, f"expected a photo. Received: a URL, which is not downloaded: {path}"
        file = None if folder is None else Path(folder, os.path.normpath(path))
        if file is None or not file.is_file():
            tried = "" if file is None else f" (there is no file {file})"
            return None, f"expected a photo. Received: only the name of one, {path}{tried}"
        return file, ""

    def examples(self) -> list[Example]:
        """Returns the photos with the captions of all their rows, in the order of first rows."""
        keys = self._photo_keys()
        photos: dict[Hashable, tuple[_Group, list[str]]] = {}
        for key, group in zip(keys, self._groups, strict=True):
            photos.setdefault((key, group.prefix), (group, []))[1].extend(group.captions)
        paths = {(group.path, key) for key, group in zip(keys, self._groups, strict=True)}
        uses = Counter(path for path, _ in paths)
        examples = []
        for group, captions in photos.values():
            name = group.path if group.path and uses[group.path] == 1 else group.where
            path = Path(group.where) if isinstance(group.photo, RowPhoto) else group.photo
            examples.append(Example(path, tuple(captions), name, group.prefix, group.stored))
        return examples

    def _photo_keys(self) -> list[Hashable]:
        """Returns a key of each group's photo; rows with equal bytes and path have the same."""
        stored = [(group, group.stored) for group in self._groups if group.stored]
        sizes = Counter((group.path, photo.size) for group, photo in stored)
        similar = [(group, photo) for group, photo in stored if sizes[group.path, photo.size] > 1]
        title = "comparing photos of equal size" if similar else None
        with ThreadPoolExecutor() as pool:
            digests = pool.map(lambda pair: pair[1].digest(), similar)
            keys: dict[str, Hashable] = {
                group.where: (group.path, digest)
                for (group, _), digest in zip(
                    similar, track(digests, len(similar), title), strict=True
                )
            }
        return [
            os.path.abspath(group.photo)
            if isinstance(group.photo, Path)
            else keys.get(group.where, group.where)
            for group in self._groups
        ]


def _label(files: SplitFiles) -> str:
    """Returns the name of the data in messages, without the scheme, which is no part of a path."""
    name = files.source.removeprefix(HUB)
    is_split = files.folder is None or Path(name).is_dir() or files.split != FILES_SPLIT
    return f"{name}, split {files.split}" if is_split else name


def _values(column: Any) -> Iterator[Any]:
    """Yields the values of a column."""
    for chunk in column.chunks:
        yield from chunk.to_pylist()


def _flat(values: Sequence[Any]) -> Iterator[Any]:
    """Yields texts of columns with texts and lists of texts."""
    for value in values:
        if isinstance(value, list):
            yield from value
        else:
            yield value
