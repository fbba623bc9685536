"""Datasets of region features, such as VisualGPT's `detections.hdf5`, with captions."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from os import PathLike
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from effcap.images import UnreadablePhoto
from effcap.trainers.data.csv_reader import read_csv
from effcap.trainers.data.dataset import CheckedExamples, ExampleDataset, check_no_augmentation
from effcap.trainers.data.json_reader import coco_names, read_json
from effcap.trainers.data.regions.feature_input import (
    FeatureInput,
    check_frozen_backbone,
    feature_input,
)
from effcap.trainers.data.regions.region_checks import (
    check_max_regions,
    check_regions,
    check_shape,
    find_regions,
)
from effcap.trainers.data.regions.region_file import MAX_REGIONS, RegionFile, UnusableRegions
from effcap.trainers.data.text_files import as_paths, read_text
from effcap.trainers.options.batches import BatchOptions

if TYPE_CHECKING:
    from effcap.captioner import Captioner

NUM_HASHED = 16  # photos whose features are part of the fingerprint


class RegionFeatures:
    """Reads the region features of each batch; an `InputLoader`.

    Args:
        file: file of the features.
        names: names of the photos' datasets.
        expected: name of the encoder input, and its shape.

    Attributes:
        num_regions: maximum number of regions per photo, at most the file's `max_regions`.
    """

    can_flip = False

    def __init__(self, file: RegionFile, names: Sequence[str], expected: FeatureInput):
        self.file, self.names, self.expected = file, names, expected
        largest = max(file.layout(name).num_rows for name in names)
        self.num_regions = min(largest, file.max_regions)

    @cached_property
    def fingerprint(self) -> str:
        """A hash of the names and shapes of all features, and of some of the features."""
        shapes = [(name, *self.file.layout(name)[:2]) for name in self.names]
        state = hashlib.sha256(repr((self.num_regions, shapes)).encode())
        count = min(NUM_HASHED, len(self.names))
        for i in np.linspace(0, len(self.names) - 1, count).astype(int):
            state.update(self.file.read(self.names[i], self.expected.feature_dim).tobytes())
        return state.hexdigest()

    def load(
        self, indices: np.ndarray, flip: np.ndarray, draws: np.ndarray | None = None
    ) -> dict[str, np.ndarray]:
        """Loads features.

        Args:
            indices: indices of the photos, (B,).
            flip: ignored.
            draws: ignored.

        Returns:
            {"regions": (B, S, C) float32}, padded with rows of zeros; or {"features": (B, S, C)}
            for an encoder of photos.

        Raises:
            UnreadablePhoto: the features cannot be read any more.
        """
        names = [self.names[i] for i in indices]
        try:
            regions = self.file.load(names, self.num_regions, self.expected.feature_dim)  # (B,S,C)
        except UnusableRegions as error:
            where = f"the regions of a photo in {self.file.path}"
            raise UnreadablePhoto(where, str(error)) from error
        return {self.expected.name: regions}


@dataclass(frozen=True)
class RegionDataset(ExampleDataset):
    """Captions of photos, and a file with region features; `read_regions` returns it.

    Attributes:
        examples: photos with captions; the photo files need not exist.
        problems: what could not be read.
        file: file of the features.
        ids: COCO ids by the photos' absolute paths; see `read_coco_ids`.
    """

    file: RegionFile
    ids: Mapping[str, str] = field(default_factory=dict)

    def check(self, captioner: Captioner, options: BatchOptions) -> CheckedExamples:
        """Reads all features once."""
        check_no_augmentation(options.augmentation, "region features")
        expected = feature_input(captioner)
        check_frozen_backbone(captioner)
        check_max_regions(self.file, expected)
        title = f"finding features of {options.name} photos"
        named, missing = find_regions(self.examples, self.file, self.ids, title)
        check_shape(self.file, [name for _, name in named], expected)
        title, record = f"checking {options.name} features", options.record_file(".json")
        named, unusable = check_regions(self.file, named, expected, title, record)
        problems = missing + unusable
        if not named:
            return CheckedExamples([], None, problems)
        names = [name for _, name in named]
        loader = RegionFeatures(self.file, names, expected)
        limit, note = self.file.max_regions, ""
        num_truncated = sum(self.file.layout(name).num_rows > limit for name in names)
        if num_truncated:
            note = (
                f"{options.name} data: only the first {limit} regions are used of {num_truncated} "
                "photos"
            )
        return CheckedExamples([example for example, _ in named], loader, problems, note)


def read_coco_ids(
    paths: str | PathLike[str] | Iterable[str | PathLike[str]],
    images: str | PathLike[str] | None = None,
) -> dict[str, str]:
    """Reads the COCO ids of photos from caption files; other JSON formats have none.

    Args:
        paths: a JSON file of captions, or several; see `read_json`.
        images: folder that the photos' names are relative to; by default the folder of the file.

    Returns:
        The ids by the photos' absolute paths.
    """
    ids = {}
    for path in map(Path, as_paths(paths)):
        folder = path.parent if images is None else Path(images)
        for number, name in coco_names(read_text(path, "JSON")).items():
            ids[os.path.abspath(Path(folder, name))] = number
    return ids


def read_regions(
    features: str | PathLike[str],
    captions: str | PathLike[str] | Iterable[str | PathLike[str]],
    images: str | PathLike[str] | None = None,
    *,
    max_regions: int = MAX_REGIONS,
    image_column: str = "image",
    caption_column: str = "caption",
    edit: Callable[[str], str] | None = None,
) -> RegionDataset:
    """Reads captions of photos that have region features.

    Args:
        features: an HDF5 file such as VisualGPT's `detections.hdf5`; see `RegionFile`.
        captions: COCO's `captions_*.json`, a CSV file (`.csv`), or several of one kind.
        images: folder that the photos' names are relative to; by default the folder of the caption
            file. The photo files need not exist.
        max_regions: regions used per photo; the first ones are used.
        image_column: name of the CSV column with the photos' names.
        caption_column: name of the CSV column with the captions.
        edit: function applied to every caption, such as `tidy`; None for no change.

    Raises:
        FileNotFoundError: a file does not exist.
        OSError: the file of features is damaged, or not HDF5.
        ValueError: a file has another format, or `max_regions` would truncate the photos' grids.

    Example:
        >>> dataset = read_regions("detections.hdf5", "captions_train2014.json")
        >>> captioner.fit(dataset.batches(captioner, batch_size=16), epochs=3, shuffle=False)
    """
    paths = as_paths(captions)
    ids: dict[str, str] = {}
    if all(Path(path).suffix.lower() == ".csv" for path in paths):
        columns = {"image_column": image_column, "caption_column": caption_column}
        photos = read_csv(paths, images, edit=edit, **columns)
    else:
        photos = read_json(paths, images, edit=edit)
        ids = read_coco_ids(paths, images)
    return RegionDataset(photos.examples, photos.problems, RegionFile(features, max_regions), ids)
