"""Region features of photos in one HDF5 file, in the form of `detections.hdf5`.

That is the form of Meshed-Memory Transformer (Cornia et al., CVPR 2020) and VisualGPT (Chen et al.,
CVPR 2022): for each photo a dataset `<key>_features` or `<key>`, a row per region, the surest
first. Their keys are COCO's image ids; any name of a photo will do.
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
MOST_REGIONS = 50  # of a photo that are read, as in the original
GRID = "grid"  # what a file calls its number of places
COCO_NAME = re.compile(r"(?:COCO_[a-z]+\d{4}_)?(\d{12})")
READS_DIRECTLY = hasattr(os, "preadv")


class UnusableRegions(ValueError):
    """Features of a photo that cannot be used; the text says why."""


class Place(NamedTuple):
    """Where the features of a photo are.

    Attributes:
        rows, channels: their shape (N, C).
        dtype: of the numbers.
        offset: of the first in the file, in bytes; None where HDF5 itself has to read them.
    """

    rows: int
    channels: int
    dtype: np.dtype
    offset: int | None


def coco_number(photo: str) -> str | None:
    """The number in a name like COCO's, such as "391895"; None for other names."""
    match = COCO_NAME.fullmatch(os.path.splitext(os.path.basename(photo))[0])
    return str(int(match[1])) if match else None


def keys_of(photo: str, number: str | None = None) -> list[str]:
    """What the features of a photo may be called, the likeliest first.

    Args:
        photo: its name as the captions have it, such as "val2014/COCO_val2014_000000391895.jpg".
        number: its COCO id, where the captions have it.

    Returns:
        the id, the name as it is, without its ending, without its folder besides, and the number in
        a name like COCO's: 391895.
    """
    name = photo.replace(os.sep, "/")
    plain = os.path.splitext(name)[0]
    keys = (number, name, plain, os.path.basename(plain), coco_number(photo))
    return list(dict.fromkeys(key for key in keys if key is not None))


def key_to_write(photo: str, number: str | None = None) -> str:
    """What features of a photo are called where we write them: by its COCO id, from the captions or
    from a name like COCO's, else by its name as it is."""
    key = number or coco_number(photo) or photo.replace(os.sep, "/")
    return key.encode(errors="surrogateescape").decode(errors="backslashreplace")


class RegionFile:
    """A file of region features; from several threads at once, and never as a whole.

    HDF5 lets one thread of a process read at a time. Where it has stored features as they are, in
    one piece, they are read past it, in as many threads as there are; so it is in files made by
    h5py's `create_dataset(name, data=features)`.

    Args:
        path: the file.
        limit: regions of a photo that are read, at most: the first.

    Raises:
        FileNotFoundError: without such a file.
        OSError: when it is damaged, or no HDF5.
        ValueError: for a limit that would cut the photos' grids.
    """

    def __init__(self, path: str | PathLike, limit: int = MOST_REGIONS):
        self.path, self.limit = Path(path), limit
        if limit < 1:
            raise ValueError(f"Expected max_regions of at least 1. Received: max_regions={limit}")
        if not self.path.is_file():
            raise FileNotFoundError(f"Expected an HDF5 file of region features. Received: {path}")
        try:
            self._file = _open(self.path)
        except OSError as error:
            raise OSError(
                f"Expected an HDF5 file of region features. Received: {path}: {error}"
            ) from error
        self._raw = self.path.open("rb", buffering=0)
        self._number = h5py.h5o.get_info(self._file.id).fileno
        self._places: dict[str, Place] = {}
        if self.grid is not None and self.grid > limit:
            grid = self.grid
            raise ValueError(
                f"Expected a limit of at least {grid} regions: {path} holds whole photos as grids "
                f"of so many, the first {limit} of which are a part of the photo. Received: "
                f"max_regions={limit}; use --max-regions {grid}, or make the features of smaller "
                "images"
            )

    def __enter__(self) -> RegionFile:
        return self

    def __exit__(self, *_) -> None:
        self.close()

    def close(self) -> None:
        """Closes the file."""
        self._raw.close()
        self._file.close()

    @cached_property
    def grid(self) -> int | None:
        """Places of the grid that all photos have features of; None for regions of a detector."""
        value = _plain(self._file.attrs.get(GRID))
        return value if isinstance(value, int) else None

    @cached_property
    def about(self) -> dict[str, Any]:
        """What the file says of itself, as `write_regions` took it."""
        return {name: _plain(value) for name, value in self._file.attrs.items()}

    @cached_property
    def _names(self) -> frozenset[str]:
        return frozenset(self._file)  # far quicker than asking HDF5 for one after the other

    @cached_property
    def example(self) -> str:
        """A name as the file has them."""
        names = [name for name in self._names if name.endswith(SUFFIX)] or self._names
        return min(names, default="none")

    def photos(self) -> list[str]:
        """The photos' keys: names that end in `_features`, without it; or all, where none does."""
        names: list[str] = []
        self._file.visit_links(names.append)
        groups = {name.rpartition("/")[0] for name in names}
        keys = [name.removesuffix(SUFFIX) for name in names if name.endswith(SUFFIX)]
        return keys or [name for name in names if name not in groups]

    def find(self, keys: Iterable[str]) -> str | None:
        """Name of the first dataset there is of these keys; None for none."""
        for key in keys:
            if self._holds(f"{key}{SUFFIX}"):
                return f"{key}{SUFFIX}"
            if self._holds(key) and self._file.get(key, getclass=True) is not h5py.Group:
                return key
        return None

    def _holds(self, name: str) -> bool:
        return name in self._names or ("/" in name and name in self._file)

    def place(self, name: str) -> Place:
        """Where the features in a dataset are, whose shape and type have been looked at.

        Raises:
            UnusableRegions: when they cannot be features.
        """
        if name not in self._places:
            self._places[name] = self._look(name)
        return self._places[name]

    def _look(self, name: str) -> Place:
        try:
            found = h5py.h5d.open(self._file.id, name.encode(errors="surrogateescape"))
            shape, dtype = found.shape, found.dtype
        except (KeyError, OSError, TypeError, RuntimeError) as error:
            reason = f"expected a dataset {name}. Received: {error.args[0]}"
            raise UnusableRegions(reason) from error
        if shape is None or len(shape) != 2 or 0 in shape or dtype.kind not in "fiu":
            received = "nothing" if shape is None else f"shape {shape} of {dtype}"
            raise UnusableRegions(f"expected {name} of shape (N, C), numbers. Received: {received}")
        size = shape[0] * shape[1] * dtype.itemsize
        whole = found.get_storage_size() == size  # it gives offsets of what was never stored, too
        offset = found.get_offset() if whole and READS_DIRECTLY else None
        if h5py.h5o.get_info(found).fileno != self._number:  # a link to another file
            offset = None
        return Place(*shape, dtype, offset)

    def read(self, name: str, channels: int) -> np.ndarray:
        """Features (N, C) float32 in a dataset, of the first `limit` regions, looked at closely.

        Raises:
            UnusableRegions: when they cannot be features, have another width than `channels`, hold
                something else than numbers or nothing but zeros, which are padding, or cannot be
                read.
        """
        place = self.place(name)
        if place.channels != channels:
            raise UnusableRegions(
                f"expected {name} of width {channels}. Received: {place.channels}"
            )
        features = np.empty((min(place.rows, self.limit), channels), np.float32)  # (N,C)
        self._read(name, features)
        if not np.isfinite(features).all():
            row, column = np.argwhere(~np.isfinite(features))[0]
            raise UnusableRegions(
                f"expected numbers in {name}. Received: {features[row, column]} in row {row}"
            )
        if not features.any():
            raise UnusableRegions(f"expected a region in {name}. Received: nothing but zeros")
        return features

    def stored(self, name: str) -> np.ndarray:
        """All of a dataset as it is in the file; UnusableRegions as `place`."""
        place = self.place(name)
        found = np.empty((place.rows, place.channels), place.dtype)  # (N,C)
        self._read(name, found)
        return found

    def load(self, names: Sequence[str], rows: int, channels: int) -> np.ndarray:
        """Features (B, rows, C) float32 of photos whose datasets `read` has passed, filled up with
        zeros.

        Raises:
            UnusableRegions: when they have become unusable since.
        """
        features = np.zeros((len(names), rows, channels), np.float32)  # (B,S,C)
        for i, name in enumerate(names):
            self._read(name, features[i, : min(self.place(name).rows, rows, self.limit)])
        return features

    def _read(self, name: str, features: np.ndarray) -> None:
        """Fills `features` (N, C), contiguous, with the first N rows."""
        place = self.place(name)
        same = place.offset is not None and place.dtype == features.dtype
        stored = features if same else np.empty(features.shape, place.dtype)  # (N,C)
        if place.offset is not None:
            self._read_bytes(name, memoryview(stored.view(np.uint8)).cast("B"), place.offset)
        else:
            try:
                stored[:] = self._file[name][: len(stored)]
            except (KeyError, OSError, RuntimeError) as error:
                raise UnusableRegions(f"{name} is damaged: {error}") from error
        if stored is not features:
            with np.errstate(over="ignore"):  # infinite is for others to see
                features[:] = stored

    def _read_bytes(self, name: str, buffer: memoryview, offset: int) -> None:
        done = 0
        while done < len(buffer):
            count = os.preadv(self._raw.fileno(), [buffer[done:]], offset + done)
            if not count:
                raise UnusableRegions(f"{self.path} ends within {name}: has it been cut?")
            done += count


def _open(path: Path) -> h5py.File:
    """The file for reading: without locks, which many network drives lack, unless this process has
    it open with them."""
    try:
        return h5py.File(path, "r", locking=False)
    except OSError:
        return h5py.File(path, "r")


def write_regions(
    path: str | PathLike, regions: Iterable[tuple[str, np.ndarray]], about: Mapping[str, Any]
) -> None:
    """Writes a file of region features, in the place of one there already only once it is whole.

    Args:
        path: the file.
        regions: keys of photos and their features (N, C).
        about: what the file is to say of itself: texts, numbers, or lists of numbers.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    new = path.with_name(f".new-{path.name}")
    with h5py.File(new, "w") as file:
        file.attrs.update(about)
        for key, features in regions:
            file.create_dataset(f"{key}{SUFFIX}", data=features)
    replace_file(new, path)


def _plain(value: Any) -> Any:
    """An attribute as Python's own type."""
    return value.tolist() if isinstance(value, np.generic | np.ndarray) else value
