"""Writes a file of region features that takes hours, so that it can be broken off at any moment."""

from __future__ import annotations

import shutil
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from os import PathLike
from pathlib import Path
from typing import Any

import numpy as np

from effcap.trainers.data.regions.region_file import SUFFIX, RegionFile, write_regions

PART_BYTES, PART_SECONDS = 2**26, 30.0  # a part is written after so many, whichever comes first
Track = Callable[[Sequence[str], int], Iterable[str]]


class RegionParts:
    """Gathers features in small files beside the file to be, and in the end makes one of them.

    Each part, and the whole, takes its name only once all of it is on the disk. What a run that was
    broken off has left is kept, and so is what a file written earlier holds: the whole is that and
    what was added. Use it in a `with` statement, at whose end what was added last is written, too.

    Args:
        path: the file to be; its parts are in a folder of that name and `.parts`.
        about: what the file is to say of itself, such as the network and a hash of its weights;
            what is there already must say the same.

    Attributes:
        keys: of the photos that there are features of.

    Raises:
        OSError: for a damaged part or file.
        ValueError: for parts or a file of features that were made otherwise.
    """

    def __init__(self, path: str | PathLike, about: Mapping[str, Any]):
        self.path, self.about = Path(path), dict(about)
        self.folder = self.path.with_name(f"{self.path.name}.parts")
        self.keys: set[str] = set()
        for part in self._written():
            with self._open(part) as file:
                self.keys.update(file.photos())
        self._waiting: dict[str, np.ndarray] = {}
        self._since = time.monotonic()

    def __enter__(self) -> RegionParts:
        return self

    def __exit__(self, *_) -> None:
        self.flush()

    def _written(self) -> list[Path]:
        """The file as it is, where it is, and the parts."""
        whole = [self.path] if self.path.exists() else []
        return whole + sorted(self.folder.glob("[0-9]*.hdf5"))

    def _open(self, part: Path) -> RegionFile:
        file = RegionFile(part, limit=2**31)
        others = [name for name in self.about if file.about.get(name) != self.about[name]]
        if others:
            found = ", ".join(f"{name}={file.about.get(name)!r}" for name in others)
            wanted = ", ".join(f"{name}={self.about[name]!r}" for name in others)
            file.close()
            raise ValueError(
                f"Expected features in {part} made in the same way: {wanted}. Received: {found}; "
                "choose another file, or remove that"
            )
        return file

    def add(self, key: str, features: np.ndarray) -> None:
        """Takes the features (N, C) of a photo; now and then, a part is written."""
        self._waiting[key] = features
        self.keys.add(key)
        size = sum(array.nbytes for array in self._waiting.values())
        if size >= PART_BYTES or time.monotonic() - self._since >= PART_SECONDS:
            self.flush()

    def flush(self) -> None:
        """Writes what was added since the last part.

        Raises:
            OSError: when there is no room.
        """
        self._since = time.monotonic()
        if not self._waiting:
            return
        self._make_room(sum(array.nbytes for array in self._waiting.values()))
        parts = [int(part.stem) for part in self._written() if part != self.path]
        part = self.folder / f"{max(parts, default=0) + 1:06}.hdf5"
        write_regions(part, self._waiting.items(), self.about)
        self._waiting = {}

    def finish(self, track: Track = lambda keys, total: keys) -> None:
        """Makes one file of all parts, and removes them.

        Args:
            track: passes the keys on as they are written, for a progress bar.

        Raises:
            OSError: when there is no room.
        """
        self.flush()
        parts = self._written()
        if any(part != self.path for part in parts):
            self._make_room(sum(part.stat().st_size for part in parts))
            write_regions(self.path, self._all(parts, track), self.about)
        shutil.rmtree(self.folder, ignore_errors=True)

    def _all(self, parts: Sequence[Path], track: Track) -> Iterator[tuple[str, np.ndarray]]:
        owners: dict[str, int] = {}
        for number, part in enumerate(parts):
            with self._open(part) as file:
                owners.update(dict.fromkeys(file.photos(), number))
        keys = sorted(owners, key=owners.__getitem__)
        at = -1
        for key in track(keys, len(keys)):
            if owners[key] != at:
                at = owners[key]
                file = self._open(parts[at])
            yield key, file.stored(f"{key}{SUFFIX}")

    def _make_room(self, needed: int) -> None:
        """HDF5 itself, when a disk runs full under it, ends the whole process."""
        self.path.parent.mkdir(parents=True, exist_ok=True)
        free = shutil.disk_usage(self.path.parent).free
        if needed > free:
            raise OSError(
                f"Expected room for {needed / 1e9:.2f} GB of features in {self.path.parent}. "
                f"Received: {free / 1e9:.2f} GB free; what was computed is kept"
            )
