"""Region features of photos in one HDF5 file, in the format of `detections.hdf5`.

The format is that of Meshed-Memory Transformer (Cornia et al., CVPR 2020) and VisualGPT (Chen et
al., CVPR 2022): for each photo a dataset `<key>_features` or `<key>` with one row per region, in
order of confidence. Their keys are COCO image ids; any name of a photo can be a key.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Mapping, Sequence
from functools import cached_property
from os import PathLike
from pathlib import Path
from typing import Any, NamedTuple

import h5py
import numpy as np

from effcap.utils.files import replace_file

SUFFIX = "_features"
MAX_REGIONS = 50  # regions read per photo, as in the original
GRID = "grid"  # attribute with the number of grid positions per photo
COCO_NAME = re.compile(r"(?:COCO_[a-z]+\d{4}_)?(\d{12})")
READS_DIRECTLY = hasattr(os, "preadv")


class UnusableRegions(ValueError):
    """The features of a photo cannot be used; the message is the reason."""


class FeatureLayout(NamedTuple):
    """Shape, type and location of the features of a photo.

    Attributes:
        num_rows: number of regions N.
        feature_dim: width C.
        dtype: type of the numbers in the file.
        offset: byte offset in the file; None if they must be read through HDF5.
    """

    num_rows: int
    feature_dim: int
    dtype: np.dtype
    offset: int | None


def coco_id(photo: str) -> str | None:
    """Returns the id in a COCO file name, such as "391895"; None for other names."""
    match = COCO_NAME.fullmatch(os.path.splitext(os.path.basename(photo))[0])
    return str(int(match[1])) if match else None


def candidate_keys(photo: str, image_id: str | None = None) -> list[str]:
    """Returns the keys that the features of a photo may have, most likely first.

    Args:
        photo: name of the photo in the captions, such as "val2014/COCO_val2014_000000391895.jpg".
        image_id: COCO id of the photo in the captions; None if it has none.

    Returns:
        The id, the name, the name without its extension, that without its folder, and the id in a
        COCO file name.
    """
    name = photo.replace(os.sep, "/")
    stem = os.path.splitext(name)[0]
    keys = (image_id, name, stem, os.path.basename(stem), coco_id(photo))
    return list(dict.fromkeys(key for key in keys if key is not None))


def feature_key(photo: str, image_id: str | None = None) -> str:
    """Returns the key under which to write the features of a photo.

    This is its COCO id, from the captions or a COCO file name, otherwise its name.

    Args:
        photo: name of the photo in the captions.
        image_id: COCO id of the photo in the captions; None if it has none.
    """
    key = image_id or coco_id(photo) or photo.replace(os.sep, "/")
    return key.encode(errors="surrogateescape").decode(errors="backslashreplace")


class RegionFile:
    """Reads region features from an HDF5 file, from several threads at once.

    HDF5 lets one thread per process read at a time. Contiguous, uncompressed datasets, such as
    those of h5py's `create_dataset(name, data=features)`, are read without HDF5, in parallel.

    Args:
        path: the file.
        max_regions: regions read per photo; the first ones are read.

    Raises:
        FileNotFoundError: the file does not exist.
        OSError: the file is damaged, or not HDF5.
        ValueError: `max_regions` is below 1, or below the number of grid positions.
    """

    def __init__(self, path: str | PathLike[str], max_regions: int = MAX_REGIONS):
        self.path, self.max_regions = Path(path), max_regions
        if max_regions < 1:
            raise ValueError(
                f"Expected max_regions of at least 1. Received: max_regions={max_regions}"
            )
        if not self.path.is_file():
            raise FileNotFoundError(f"HDF5 file of region features not found: {path}")
        try:
            self._file = _open(self.path)
        except OSError as error:
            raise OSError(
                f"Expected an HDF5 file of region features. Received: {path}: {error}"
            ) from error
        self._raw = self.path.open("rb", buffering=0)
        self._file_number = h5py.h5o.get_info(self._file.id).fileno
        self._layouts: dict[str, FeatureLayout] = {}
        if self.grid is not None and self.grid > max_regions:
            raise ValueError(
                f"{path} holds grids of {self.grid} positions per photo, which max_regions would "
                f"truncate. Received: max_regions={max_regions}; use --max-regions {self.grid}, or "
                "compute the features of smaller images"
            )

    def __enter__(self) -> RegionFile:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    def close(self) -> None:
        """Closes the file."""
        self._raw.close()
        self._file.close()

    @cached_property
    def grid(self) -> int | None:
        """Number of grid positions per photo; None for regions of a detector."""
        value = _to_python(self._file.attrs.get(GRID))
        return value if isinstance(value, int) else None

    @cached_property
    def attributes(self) -> dict[str, Any]:
        """Attributes of the file, as passed to `write_regions`."""
        return {name: _to_python(value) for name, value in self._file.attrs.items()}

    @cached_property
    def _names(self) -> frozenset[str]:
        return frozenset(self._file)  # much faster than one HDF5 query per name

    @cached_property
    def example_name(self) -> str:
        """Name of one dataset in the file, for messages."""
        names = [name for name in self._names if name.endswith(SUFFIX)] or self._names
        return min(names, default="none")

    def photo_keys(self) -> list[str]:
        """Returns the keys of all photos: dataset names without "_features".

        If no name ends in "_features", all datasets are features.
        """
        names: list[str] = []
        self._file.visit_links(names.append)
        groups = {name.rpartition("/")[0] for name in names}
        keys = [name.removesuffix(SUFFIX) for name in names if name.endswith(SUFFIX)]
        return keys or [name for name in names if name not in groups]

    def find_dataset(self, keys: Iterable[str]) -> str | None:
        """Returns the name of the first existing dataset for these keys; None if there is none."""
        for key in keys:
            if self._contains(f"{key}{SUFFIX}"):
                return f"{key}{SUFFIX}"
            if self._contains(key) and self._file.get(key, getclass=True) is not h5py.Group:
                return key
        return None

    def _contains(self, name: str) -> bool:
        return name in self._names or ("/" in name and name in self._file)

    def layout(self, name: str) -> FeatureLayout:
        """Returns the layout of a dataset.

        Raises:
            UnusableRegions: shape or type cannot be features, or the dataset does not exist.
        """
        if name not in self._layouts:
            self._layouts[name] = self._read_layout(name)
        return self._layouts[name]

    def _read_layout(self, name: str) -> FeatureLayout:
        try:
            dataset = h5py.h5d.open(self._file.id, name.encode(errors="surrogateescape"))
            shape, dtype = dataset.shape, dataset.dtype
        except (KeyError, OSError, TypeError, RuntimeError) as error:
            reason = f"expected a dataset {name}. Received: {error.args[0]}"
            raise UnusableRegions(reason) from error
        if shape is None or len(shape) != 2 or 0 in shape or dtype.kind not in "fiu":
            received = "no data" if shape is None else f"shape {shape} of {dtype}"
            raise UnusableRegions(f"expected {name} of shape (N, C), numeric. Received: {received}")
        size = shape[0] * shape[1] * dtype.itemsize
        complete = dataset.get_storage_size() == size  # HDF5 has offsets of unwritten data too
        offset = dataset.get_offset() if complete and READS_DIRECTLY else None
        if h5py.h5o.get_info(dataset).fileno != self._file_number:  # a link to another file
            offset = None
        return FeatureLayout(shape[0], shape[1], dtype, offset)

    def read(self, name: str, feature_dim: int, num_positions: int | None = None) -> np.ndarray:
        """Reads and checks the features of one photo.

        Args:
            name: name of the dataset.
            feature_dim: expected width C.
            num_positions: expected number of rows. None for any number.

        Returns:
            The first `max_regions` regions, (N, C) float32.

        Raises:
            UnusableRegions: the features have another shape, contain NaN or infinity, are all zero
                (which marks padding), or cannot be read.
        """
        layout = self.layout(name)
        if num_positions not in (None, layout.num_rows):
            raise UnusableRegions(
                f"expected {name} of {num_positions} positions. Received: {layout.num_rows}"
            )
        if layout.feature_dim != feature_dim:
            raise UnusableRegions(
                f"expected {name} of width {feature_dim}. Received: {layout.feature_dim}"
            )
        num_rows = min(layout.num_rows, self.max_regions)
        features = np.empty((num_rows, feature_dim), np.float32)  # (N,C)
        self._read_into(name, features)
        if not np.isfinite(features).all():
            row, column = np.argwhere(~np.isfinite(features))[0]
            raise UnusableRegions(
                f"expected finite numbers in {name}. Received: {features[row, column]} in row {row}"
            )
        if not features.any():
            raise UnusableRegions(f"expected at least one region in {name}. Received: only zeros")
        return features

    def read_stored(self, name: str) -> np.ndarray:
        """Reads a whole dataset in the type of the file, (N, C).

        Raises:
            UnusableRegions: the dataset cannot be features, or cannot be read.
        """
        layout = self.layout(name)
        features = np.empty((layout.num_rows, layout.feature_dim), layout.dtype)  # (N,C)
        self._read_into(name, features)
        return features

    def load(self, names: Sequence[str], num_regions: int, feature_dim: int) -> np.ndarray:
        """Loads features that `read` has checked before.

        Args:
            names: names of the datasets.
            num_regions: number of regions S of the result.
            feature_dim: width C.

        Returns:
            Features (B, S, C) float32, padded with zeros.

        Raises:
            UnusableRegions: the features cannot be read any more.
        """
        features = np.zeros((len(names), num_regions, feature_dim), np.float32)  # (B,S,C)
        for i, name in enumerate(names):
            num_rows = min(self.layout(name).num_rows, num_regions, self.max_regions)
            self._read_into(name, features[i, :num_rows])
        return features

    def _read_into(self, name: str, features: np.ndarray) -> None:
        """Fills the contiguous array `features` (N, C) with the first N rows of a dataset."""
        layout = self.layout(name)
        direct = layout.offset is not None and layout.dtype == features.dtype
        stored = features if direct else np.empty(features.shape, layout.dtype)  # (N,C)
        if layout.offset is not None:
            self._read_bytes(name, stored.view(np.uint8).data.cast("B"), layout.offset)
        else:
            try:
                stored[:] = self._file[name][: len(stored)]
            except (KeyError, OSError, RuntimeError) as error:
                raise UnusableRegions(f"{name} is damaged: {error}") from error
        if stored is not features:
            with np.errstate(over="ignore"):  # `read` reports infinite values
                features[:] = stored

    def _read_bytes(self, name: str, buffer: memoryview, offset: int) -> None:
        done = 0
        while done < len(buffer):
            count = os.preadv(self._raw.fileno(), [buffer[done:]], offset + done)
            if not count:
                raise UnusableRegions(f"{self.path} ends within {name}; it may be truncated")
            done += count


def _open(path: Path) -> h5py.File:
    """Opens a file without locks, which many network drives lack, or else with locks.

    HDF5 needs locks if this process already has the file open with them.
    """
    try:
        return h5py.File(path, "r", locking=False)
    except OSError:
        return h5py.File(path, "r")


def write_regions(
    path: str | PathLike[str],
    regions: Iterable[tuple[str, np.ndarray]],
    attributes: Mapping[str, Any],
) -> None:
    """Writes a file of region features; an existing file is replaced once the new one is complete.

    Args:
        path: the file.
        regions: keys of photos and their features (N, C).
        attributes: attributes of the file: strings, numbers, or lists of numbers.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    new = path.with_name(f".new-{path.name}")
    with h5py.File(new, "w") as file:
        file.attrs.update(attributes)
        for key, features in regions:
            file.create_dataset(f"{key}{SUFFIX}", data=features)
    replace_file(new, path)


def _to_python(value: Any) -> Any:
    """Converts an attribute to Python's own type."""
    return value.tolist() if isinstance(value, np.generic | np.ndarray) else value
