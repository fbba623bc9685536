"""Finds photos by the keys of their features."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping, Sequence
from os import PathLike
from pathlib import Path

from effcap.tools.captioning.photos import expand
from effcap.trainers.data.dataset import ExampleDataset
from effcap.trainers.data.regions.region_file import feature_key


def find_keys(photos: str | PathLike[str] | Sequence[str | PathLike[str]]) -> dict[str, Path]:
    """Returns photo files by key, from files, folders and patterns.

    Raises:
        FileNotFoundError: a file or folder does not exist, or there are no photos.
        ValueError: two photos have the same key.
    """
    return unique_keys((feature_key(path.name), path) for path in expand(photos))


def dataset_keys(dataset: ExampleDataset, ids: Mapping[str, str] | None = None) -> dict[str, Path]:
    """Returns the photo files of a dataset by key.

    Args:
        dataset: photos with captions.
        ids: COCO ids by absolute path.

    Raises:
        ValueError: there are no photos, or two have the same key.
    """
    if not dataset.examples:
        raise ValueError("There are no photos with captions")
    ids = ids or {}
    return unique_keys(
        (feature_key(example.name, ids.get(os.path.abspath(example.path))), example.path)
        for example in dataset.examples
    )


def unique_keys(photos: Iterable[tuple[str, Path]]) -> dict[str, Path]:
    """Returns files by key; raises a `ValueError` if two have the same key."""
    files: dict[str, Path] = {}
    for key, path in photos:
        if files.setdefault(key, path) != path:
            raise ValueError(
                f"{files[key]} and {path} would share the key {key}; name photos with their "
                "folders, in a CSV file"
            )
    return files
