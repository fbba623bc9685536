"""Features of playlists on disk: for each modality an array per playlist."""

from __future__ import annotations

import re
from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping, Sequence
from os import PathLike
from pathlib import Path
from typing import Any

import numpy as np

PUBLISHED = re.compile(r"playlists_(.+)_embedding")  # how PlayNTell's data name a folder


class BadArray(ValueError):
    """Features that are missing, damaged, or of another form.

    Attributes:
        playlist: its id.
        modality: which of its features.
        reason: what was expected and what was found.
    """

    def __init__(self, playlist: str, modality: str, reason: str):
        super().__init__(playlist, modality, reason)
        self.playlist, self.modality, self.reason = playlist, modality, reason

    def __str__(self) -> str:
        return f"Cannot read {self.modality} of playlist {self.playlist}: {self.reason}"


class PlaylistArrays(ABC):
    """Arrays (n, C) by modality and playlist: for audio a row per track (C = 256), for tags a row
    per distinct tag (300), for artist one row of shares (10).

    Attributes:
        path: where they are.
        modalities: that there are arrays of.
    """

    path: Path
    modalities: tuple[str, ...]

    @abstractmethod
    def holds(self, modality: str, playlist: str) -> bool:
        """Whether there is such an array, good or bad."""

    @abstractmethod
    def _open(self, modality: str, playlist: str) -> Any:
        """What has `shape` and `dtype`, and becomes an array when asked for."""

    def check(self, modalities: Iterable[str]) -> None:
        """FileNotFoundError where there is none of those modalities."""
        missing = [name for name in modalities if name not in self.modalities]
        if missing:
            raise FileNotFoundError(
                f"Expected features {', '.join(missing)} in {self.path}. Received: "
                f"{', '.join(self.modalities) or 'none'}; to train without, set "
                "encoder.modalities, such as --set 'encoder.modalities={\"tags\": 300}'"
            )

    def read(self, modality: str, playlist: str, width: int) -> np.ndarray:
        """(n, width) float32, n of at least 0.

        Raises:
            BadArray: where there is no such array, or one that cannot be used.
        """
        if not self.holds(modality, playlist):
            raise BadArray(playlist, modality, f"there is none in {self.path}")
        try:
            stored = self._open(modality, playlist)
            shape, dtype = stored.shape, stored.dtype
            if len(shape) != 2 or shape[1] != width:
                reason = f"expected an array of n rows of {width}. Received: {shape}"
            elif dtype.kind not in "fiu":
                reason = f"expected numbers. Received: an array of {dtype}"
            else:
                with np.errstate(over="ignore"):
                    array = np.array(stored, np.float32)  # (n,C)
                if np.isfinite(array).all():
                    return array
                reason = "expected numbers. Received: NaN or infinity"
        except (OSError, ValueError, EOFError, KeyError, RuntimeError, MemoryError) as error:
            reason = f"damaged: {error}"
        raise BadArray(playlist, modality, reason)


class ArrayFolder(PlaylistArrays):
    """`<modality>/<playlist>.npy` in a folder; the folder of a modality may be called as in
    PlayNTell's data, `playlists_<modality>_embedding`. Pickled arrays are not read."""

    def __init__(self, path: Path):
        self.path = path
        self._folders: dict[str, Path] = {}
        for folder in sorted(filter(Path.is_dir, path.iterdir())):
            published = PUBLISHED.fullmatch(folder.name)
            self._folders.setdefault(published.group(1) if published else folder.name, folder)
        self.modalities = tuple(self._folders)

    def _file(self, modality: str, playlist: str) -> Path:
        return self._folders[modality] / f"{playlist}.npy"

    def holds(self, modality: str, playlist: str) -> bool:
        there = modality in self._folders and _is_file_name(playlist)
        return there and self._file(modality, playlist).is_file()

    def _open(self, modality: str, playlist: str) -> np.ndarray:
        # Of a mapped file, its length is checked before there is memory for what it says it holds.
        stored = np.load(self._file(modality, playlist), mmap_mode="r", allow_pickle=False)
        if not isinstance(stored, np.ndarray):
            stored.close()
            raise ValueError("several arrays in one file")
        return stored


class ArrayFile(PlaylistArrays):
    """Data sets `<modality>/<playlist>` in an HDF5 file."""

    def __init__(self, path: Path):
        import h5py

        self.path = path
        try:
            self._file = h5py.File(path)
            groups = [name for name in self._file if isinstance(self._file.get(name), h5py.Group)]
        except (OSError, RuntimeError) as error:
            raise ValueError(f"Expected an HDF5 file. Received: {path}: {error}") from error
        self.modalities = tuple(groups)

    def holds(self, modality: str, playlist: str) -> bool:
        inside = not {"/", "\0"} & set(playlist) and playlist != "."
        return modality in self.modalities and inside and playlist in self._file[modality]

    def _open(self, modality: str, playlist: str) -> Any:
        import h5py

        stored = self._file[modality][playlist]
        if not isinstance(stored, h5py.Dataset):
            raise ValueError("a group, not a data set")
        return stored


def open_arrays(path: str | PathLike) -> PlaylistArrays:
    """Features in a folder of `.npy` files or in an HDF5 file; see `ArrayFolder`, `ArrayFile`.

    Raises:
        FileNotFoundError: without such a file or folder.
        ValueError: for a file that is no HDF5.
    """
    path = Path(path)
    if not path.exists():
        raise FileNotFoundError(
            "Expected features of playlists: a folder with audio/ID.npy, tags/ID.npy and "
            f"artist/ID.npy, or an HDF5 file. Received: {path}, which is not there"
        )
    return ArrayFolder(path) if path.is_dir() else ArrayFile(path)


def save_arrays(folder: str | PathLike, playlist: str, arrays: Mapping[str, np.ndarray]) -> None:
    """Writes `<modality>/<playlist>.npy` into a folder, as `ArrayFolder` reads it.

    Raises:
        ValueError: for an id that is no name of a file.
    """
    if not _is_file_name(playlist):
        raise ValueError(f"Expected an id that can be a file's name. Received: {playlist!r}")
    for modality, array in arrays.items():
        place = Path(folder, modality)
        place.mkdir(parents=True, exist_ok=True)
        np.save(place / f"{playlist}.npy", array, allow_pickle=False)


def _is_file_name(playlist: str) -> bool:
    """Whether an id leads nowhere else."""
    return not {"/", "\\", "\0"} & set(playlist)


def pad_arrays(arrays: Sequence[np.ndarray], width: int, rows: int | None = None) -> np.ndarray:
    """(B, n, width) float32 of arrays (at most n, width), with rows of zeros below the shorter.

    n is `rows`, or by default that of the longest, and at least 1.
    """
    rows = max([1, *map(len, arrays)]) if rows is None else rows
    padded = np.zeros((len(arrays), rows, width), np.float32)  # (B,n,C)
    for i, array in enumerate(arrays):
        padded[i, : len(array)] = array
    return padded
