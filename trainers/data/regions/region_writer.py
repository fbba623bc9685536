"""Writes a large file of region features; the process can be killed at any time."""

from __future__ import annotations

import shutil
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from os import PathLike
from pathlib import Path
from typing import Any

import numpy as np

from effcap.trainers.data.regions.region_file import SUFFIX, RegionFile, write_regions
from effcap.utils.files import check_free_space

PART_BYTES, PART_SECONDS = 2**26, 30.0  # a part is written at either limit
Track = Callable[[Sequence[str], int], Iterable[str]]


class RegionWriter:
    """Collects region features in part files, and merges them into one file at the end.

    Part files and the final file get their names only when they are complete on disk. Parts of a
    killed run and the contents of an existing file are kept: the final file holds these and the
    added features. Use it in a `with` statement, which writes the last part.

    Args:
        path: the final file; its parts are in the folder `<path>.parts`.
        attributes: attributes of the file, such as the network and a hash of its weights. Existing
            parts and an existing file must have the same ones.

    Attributes:
        keys: keys of all photos that have features.

    Raises:
        OSError: a part or the file is damaged.
        ValueError: a part or the file has other attributes.
    """

    def __init__(self, path: str | PathLike[str], attributes: Mapping[str, Any]):
        self.path, self.attributes = Path(path), dict(attributes)
        self.folder = self.path.with_name(f"{self.path.name}.parts")
        self.keys: set[str] = set()
        for part in self._existing_files():
            with self._open(part) as file:
                self.keys.update(file.photo_keys())
        self._pending: dict[str, np.ndarray] = {}
        self._last_flush = time.monotonic()

    def __enter__(self) -> RegionWriter:
        return self

    def __exit__(self, *exception: object) -> None:
        self.flush()

    def _existing_files(self) -> list[Path]:
        """Returns the file, if it exists, and its parts."""
        files = [self.path] if self.path.exists() else []
        return files + sorted(self.folder.glob("[0-9]*.hdf5"))

    def _open(self, path: Path) -> RegionFile:
        file = RegionFile(path, max_regions=2**31)
        different = [
            name for name, value in self.attributes.items() if file.attributes.get(name) != value
        ]
        if different:
            received = ", ".join(f"{name}={file.attributes.get(name)!r}" for name in different)
            expected = ", ".join(f"{name}={self.attributes[name]!r}" for name in different)
            file.close()
            raise ValueError(
                f"Expected features in {path} made with {expected}. Received: {received}; choose "
                "another file, or remove this one"
            )
        return file

    def add(self, key: str, features: np.ndarray) -> None:
        """Adds the features (N, C) of a photo; writes a part at intervals."""
        self._pending[key] = features
        self.keys.add(key)
        size = sum(array.nbytes for array in self._pending.values())
        if size >= PART_BYTES or time.monotonic() - self._last_flush >= PART_SECONDS:
            self.flush()

    def flush(self) -> None:
        """Writes the features added since the last part.

        Raises:
            OSError: there is not enough disk space.
        """
        self._last_flush = time.monotonic()
        if not self._pending:
            return
        self._check_disk_space(sum(array.nbytes for array in self._pending.values()))
        numbers = [int(path.stem) for path in self._existing_files() if path != self.path]
        part = self.folder / f"{max(numbers, default=0) + 1:06}.hdf5"
        write_regions(part, self._pending.items(), self.attributes)
        self._pending = {}

    def finish(self, track: Track = lambda keys, total: keys) -> None:
        """Merges all parts into one file and removes them.

        Args:
            track: wraps the iteration over the keys, for a progress bar; called with the keys and
                their number.

        Raises:
            OSError: there is not enough disk space.
        """
        self.flush()
        files = self._existing_files()
        if any(file != self.path for file in files):
            self._check_disk_space(sum(file.stat().st_size for file in files))
            write_regions(self.path, self._read_all(files, track), self.attributes)
        shutil.rmtree(self.folder, ignore_errors=True)

    def _read_all(self, paths: Sequence[Path], track: Track) -> Iterator[tuple[str, np.ndarray]]:
        """Yields keys and features, file by file; the last file with a key counts."""
        owners: dict[str, int] = {}
        for number, path in enumerate(paths):
            with self._open(path) as file:
                owners.update(dict.fromkeys(file.photo_keys(), number))
        keys = sorted(owners, key=owners.__getitem__)
        current = -1
        current_file: RegionFile | None = None
        for key in track(keys, len(keys)):
            if current_file is None or owners[key] != current:
                if current_file is not None:
                    current_file.close()
                current = owners[key]
                current_file = self._open(paths[current])
            yield key, current_file.read_stored(f"{key}{SUFFIX}")
        if current_file is not None:
            current_file.close()

    def _check_disk_space(self, num_bytes: int) -> None:
        """Checks the free space, because HDF5 ends the process when a disk is full."""
        self.path.parent.mkdir(parents=True, exist_ok=True)
        check_free_space(self.path.parent, num_bytes, "; features written so far are kept")
