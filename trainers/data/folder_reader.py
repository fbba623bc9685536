"""Reads folders of photos with captions: image folders with metadata, and photos with text files.

A folder has one of two layouts:

- `metadata.jsonl` or `metadata.csv` in the folders of the photos or above them, as in the
  imagefolder of Hugging Face's `datasets`;
- `NAME.txt` or `NAME.caption` beside each photo, as in kohya's training scripts.
"""

from __future__ import annotations

import csv
import os
import unicodedata
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from os import PathLike
from pathlib import Path

from effcap.trainers.data.csv_reader import PREFIX, add_rows
from effcap.trainers.data.example import Example, Problem
from effcap.trainers.data.json_reader import FILE_NAME, METADATA_CAPTIONS, add_lines
from effcap.trainers.data.photos import PhotoDataset
from effcap.trainers.data.text_files import CaptionTable, read_files, read_text, split_lines
from effcap.utils.find_files import IMAGE_SUFFIXES, files_below, natural_key

METADATA = ("metadata.jsonl", "metadata.csv")
SIDECARS = (".caption", ".txt")  # the first one counts, because kohya's .txt then holds tags
LAYOUTS = (
    "metadata.jsonl or metadata.csv with file_name and text or caption, in the folder of the "
    "photos or above it; or NAME.txt or NAME.caption beside each photo, with a caption per line"
)


def read_folder(
    folders: str | PathLike[str] | Iterable[str | PathLike[str]],
    *,
    edit: Callable[[str], str] | None = None,
) -> PhotoDataset:
    """Reads photos and captions from folders and the folders in them.

    If there are files `metadata.jsonl` or `metadata.csv`, the captions are theirs. Each names
    photos relative to its own folder, in `file_name`, with captions in the first of `text`,
    `caption` and `captions`; in JSON, a list holds several captions. A `prefix` is a text that the
    captions continue. A photo named in several files has all their captions. A folder without any
    captions takes those of a metadata file in its parent folder: `data/train` has the photos
    `train/...` of `data/metadata.jsonl`. Rows of photos outside the folder are not read.

    Otherwise, each photo has a text file of the same name beside it, `NAME.caption` or `NAME.txt`,
    with one caption per line.

    Args:
        folders: a folder, or several.
        edit: function applied to every caption, such as `tidy` or `plain`; None for no change.

    Returns:
        The photos, in the order of their rows or in natural order of their paths. Rows without a
        photo or caption, photos without a caption and text files without a photo are `problems`.
        Photo files are checked by `PhotoDataset.batches`.

    Raises:
        FileNotFoundError: a folder does not exist.
        ValueError: a folder has no captions in one of the layouts, or both metadata files.

    Example:
        >>> dataset = read_folder("photos")
        >>> captioner.fit(dataset.batches(captioner, batch_size=16), epochs=3, shuffle=False)
    """
    return PhotoDataset(*read_files(lambda folder: _read_folder(folder, edit), folders))


def _read_folder(
    folder: Path, edit: Callable[[str], str] | None
) -> tuple[list[Example], list[Problem]]:
    if not folder.is_dir():
        raise FileNotFoundError(f"Folder of photos not found: {folder}")
    files = files_below(folder)
    photos = [path for path in files if path.suffix.lower() in IMAGE_SUFFIXES]
    sidecars = [path for path in files if path.suffix.lower() in SIDECARS]
    metadata = sorted((path for path in files if path.name in METADATA), key=natural_key)
    if not metadata and not sidecars:
        metadata = [path for name in METADATA if (path := _parent(folder) / name).is_file()]
    if metadata:
        examples, problems = _read_metadata(folder, metadata, photos, edit)
    else:
        examples, problems = _read_sidecars(folder, sidecars, photos, edit)
    if not examples:
        first = f", such as {problems[0]}" if problems else ""
        raise ValueError(
            f"Expected captions in {folder}: {LAYOUTS}. Received: {len(photos)} photos and "
            f"no usable caption{first}"
        )
    return examples, problems


def _parent(folder: Path) -> Path:
    return Path(os.path.abspath(folder)).parent


def _read_metadata(
    folder: Path,
    files: Sequence[Path],
    photos: Sequence[Path],
    edit: Callable[[str], str] | None,
) -> tuple[list[Example], list[Problem]]:
    """Reads metadata files; one above the folder has rows of photos in other folders, too."""
    _check_one_format(files)
    paths = {_key(path): path for path in photos}
    named: set[str] = set()

    def read(path: Path) -> tuple[list[Example], list[Problem]]:
        table = _read_table(path, edit)
        named.update(map(_key, table.paths()))
        examples = table.examples()
        return [replace(x, path=paths.get(_key(x.path), x.path)) for x in examples], table.problems

    examples, problems = read_files(read, files)
    root = os.path.join(os.path.abspath(folder), "")
    examples = [
        replace(example, name=os.path.relpath(example.path, folder))
        for example in examples
        if os.path.abspath(example.path).startswith(root)
    ]
    reason = f"expected a row of it in {' or '.join(METADATA)}. Received: none"
    missing = (path for name, path in paths.items() if name not in named)
    return examples, problems + [
        Problem(str(path), reason) for path in sorted(missing, key=natural_key)
    ]


def _check_one_format(files: Sequence[Path]) -> None:
    folder, count = Counter(path.parent for path in files).most_common(1)[0]
    if count > 1:
        raise ValueError(f"Expected {' or '.join(METADATA)} in {folder}. Received: both")


def _key(path: str | Path) -> str:
    """Returns the absolute path in one Unicode form, because macOS decomposes accents."""
    return unicodedata.normalize("NFC", os.path.abspath(path))


def _read_table(path: Path, edit: Callable[[str], str] | None) -> CaptionTable:
    """Reads a metadata file."""
    table = CaptionTable(path.parent, edit)
    text = read_text(path, "metadata")
    if path.suffix == ".jsonl":
        add_lines(table, path, text)
        return table
    header = next(csv.reader(split_lines(text), skipinitialspace=True), [])
    columns = [column.strip() for column in header]
    caption = next((name for name in METADATA_CAPTIONS if name in columns), METADATA_CAPTIONS[0])
    try:
        add_rows(table, path, text, (FILE_NAME, caption, PREFIX))
    except ValueError as error:
        raise ValueError(f"{error}. A folder of photos has {LAYOUTS}") from None
    return table


def _read_sidecars(
    folder: Path,
    files: Sequence[Path],
    photos: Sequence[Path],
    edit: Callable[[str], str] | None,
) -> tuple[list[Example], list[Problem]]:
    """Reads the text files beside photos."""
    by_stem: dict[str, Path] = {}
    for suffix in reversed(SIDECARS):
        by_stem |= {_stem(path): path for path in files if path.suffix.lower() == suffix}
    table = CaptionTable(folder, edit)
    for photo in sorted(photos, key=natural_key):
        path = by_stem.get(_stem(photo))
        if path is None:
            reason = f"expected {photo.stem}.txt or {photo.stem}.caption beside it. Received: none"
            table.problems.append(Problem(str(photo), reason))
            continue
        try:
            lines = [line for line in split_lines(read_text(path, "text")) if line.strip()]
        except ValueError as error:
            table.problems.append(Problem(str(path), str(error)))
            continue
        table.add(str(path), os.path.relpath(photo, folder), lines or [""])
    stems = set(map(_stem, photos))
    for path in sorted((path for path in files if _stem(path) not in stems), key=natural_key):
        reason = f"expected a photo {path.stem}.jpg, or with another suffix, beside it"
        table.problems.append(Problem(str(path), f"{reason}. Received: none"))
    return table.examples(), table.problems


def _stem(path: Path) -> str:
    return os.path.splitext(path)[0]
