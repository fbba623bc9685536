"""Stored features of playlists: an array per modality and playlist, in a folder or HDF5 file."""

from __future__ import annotations

import re
from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping, Sequence
from os import PathLike
from pathlib import Path
from typing import Any

import numpy as np

PUBLISHED_FOLDER = re.compile(r"playlists_(.+)_embedding")  # folder names in PlayNTell's data


class UnreadableArray(ValueError):
    """Features that are missing, damaged or of the wrong shape.

    Attributes:
        playlist: id of the playlist.
        modality: name of the modality.
        reason: what is wrong.
    """

    def __init__(self, playlist: str, modality: str, reason: str):
        super().__init__(playlist, modality, reason)
        self.playlist, self.modality, self.reason = playlist, modality, reason

    def __str__(self) -> str:
        return f"Cannot read {self.modality} of playlist {self.playlist}: {self.reason}"


class PlaylistArrays(ABC):
    """Arrays (n, C) by modality and playlist.

    In PlayNTell: "audio" has a row of 256 per track, "tags" a row of 300 per distinct word, and
    "artist" one row of 10 fractions of tracks.

    Attributes:
        path: the folder or file.
        modalities: names of the modalities it has.
    """

    path: Path
    modalities: tuple[str, ...]

    @abstractmethod
    def has(self, modality: str, playlist: str) -> bool:
        """Returns whether there is such an array, readable or not."""

    @abstractmethod
    def _open(self, modality: str, playlist: str) -> Any:
        """Returns an object with `shape` and `dtype` that NumPy converts to an array."""

    def check_modalities(self, modalities: Iterable[str]) -> None:
        """Checks that every one of `modalities` has features.

        Raises:
            FileNotFoundError: a modality has none.
        """
        missing = [name for name in modalities if name not in self.modalities]
        if missing:
            raise FileNotFoundError(
                f"No {' and no '.join(missing)} features in {self.path}, which has "
                f"{', '.join(self.modalities) or 'none'}. To train without them, set "
                "encoder.modalities, such as --set 'encoder.modalities={\"tags\": 300}'"
            )

    def read(self, modality: str, playlist: str, feature_dim: int) -> np.ndarray:
        """Reads the features of a playlist.

        Args:
            modality: name of the modality.
            playlist: id of the playlist.
            feature_dim: expected number of columns C.

        Returns:
            (n, C) float32; n may be 0.

        Raises:
            UnreadableArray: the array is missing or cannot be used.
        """
        if not self.has(modality, playlist):
            raise UnreadableArray(playlist, modality, f"no such features in {self.path}")
        try:
            stored = self._open(modality, playlist)
            shape, dtype = stored.shape, stored.dtype
            if len(shape) != 2 or shape[1] != feature_dim:
                reason = f"expected an array of shape (n, {feature_dim}). Received: {shape}"
            elif dtype.kind not in "fiu":
                reason = f"expected real numbers. Received: dtype {dtype}"
            else:
                with np.errstate(over="ignore"):
                    array = np.array(stored, np.float32)  # (n, C)
                if np.isfinite(array).all():
                    return array
                reason = "expected finite numbers. Received: NaN or infinity"
        except (OSError, ValueError, EOFError, KeyError, RuntimeError, MemoryError) as error:
            reason = f"damaged: {error}"
        raise UnreadableArray(playlist, modality, reason)


class ArrayFolder(PlaylistArrays):
    """A folder of files `MODALITY/PLAYLIST.npy`.

    The folder of a modality may also be named `playlists_MODALITY_embedding`, as in PlayNTell's
    data. Pickled arrays are refused.
    """

    def __init__(self, path: Path):
        self.path = path
        self._folders: dict[str, Path] = {}
        for folder in sorted(filter(Path.is_dir, path.iterdir())):
            published = PUBLISHED_FOLDER.fullmatch(folder.name)
            self._folders.setdefault(published.group(1) if published else folder.name, folder)
        self.modalities = tuple(self._folders)

    def has(self, modality: str, playlist: str) -> bool:
        """Returns whether there is such a file."""
        valid = modality in self._folders and _is_file_name(playlist)
        return valid and self._file(modality, playlist).is_file()

    def _file(self, modality: str, playlist: str) -> Path:
        return self._folders[modality] / f"{playlist}.npy"

    def _open(self, modality: str, playlist: str) -> np.ndarray:
        # Mapping a file checks its length before memory is allocated for the shape in its header.
        stored = np.load(self._file(modality, playlist), mmap_mode="r", allow_pickle=False)
        if not isinstance(stored, np.ndarray):
            stored.close()
            raise ValueError("several arrays in one file")
        return stored


class ArrayFile(PlaylistArrays):
    """An HDF5 file of data sets `MODALITY/PLAYLIST`."""

    def __init__(self, path: Path):
        import h5py

        self.path = path
        try:
            self._file = h5py.File(path)
            groups = [name for name in self._file if isinstance(self._file.get(name), h5py.Group)]
        except (OSError, RuntimeError) as error:
            raise ValueError(f"Expected an HDF5 file. Received: {path}: {error}") from error
        self.modalities = tuple(groups)

    def has(self, modality: str, playlist: str) -> bool:
        """Returns whether there is such a data set."""
        valid = not {"/", "\0"} & set(playlist) and playlist != "."
        return modality in self.modalities and valid and playlist in self._file[modality]

    def _open(self, modality: str, playlist: str) -> Any:
        import h5py

        stored = self._file[modality][playlist]
        if not isinstance(stored, h5py.Dataset):
            raise ValueError("a group, not a data set")
        return stored


def open_arrays(path: str | PathLike[str]) -> PlaylistArrays:
    """Opens a folder of `.npy` files (`ArrayFolder`) or an HDF5 file (`ArrayFile`).

    Raises:
        FileNotFoundError: there is nothing at `path`.
        ValueError: the file is not HDF5.
    """
    path = Path(path)
    if not path.exists():
        raise FileNotFoundError(
            f"No playlist features at {path}: expected a folder with audio/ID.npy, tags/ID.npy "
            "and artist/ID.npy, or an HDF5 file"
        )
    return ArrayFolder(path) if path.is_dir() else ArrayFile(path)


def save_arrays(
    folder: str | PathLike[str], playlist: str, arrays: Mapping[str, np.ndarray]
) -> None:
    """Writes the arrays of a playlist to `MODALITY/PLAYLIST.npy` in a folder.

    Args:
        folder: created if missing; `ArrayFolder` reads it.
        playlist: id of the playlist.
        arrays: (n, C) by modality.

    Raises:
        ValueError: the id cannot be a file name.
    """
    if not _is_file_name(playlist):
        raise ValueError(f"Expected a playlist id that can be a file name. Received: {playlist!r}")
    for modality, array in arrays.items():
        modality_folder = Path(folder, modality)
        modality_folder.mkdir(parents=True, exist_ok=True)
        np.save(modality_folder / f"{playlist}.npy", array, allow_pickle=False)


def _is_file_name(playlist: str) -> bool:
    """Returns whether an id is free of path separators."""
    return not {"/", "\\", "\0"} & set(playlist)


def pad_arrays(
    arrays: Sequence[np.ndarray], feature_dim: int, num_rows: int | None = None
) -> np.ndarray:
    """Pads arrays with rows of zeros to a common length.

    Args:
        arrays: B arrays of at most `num_rows` rows of length C.
        feature_dim: C.
        num_rows: rows n of the result. None takes the longest array's, at least 1.

    Returns:
        (B, n, C) float32.
    """
    num_rows = max([1, *map(len, arrays)]) if num_rows is None else num_rows
    padded = np.zeros((len(arrays), num_rows, feature_dim), np.float32)  # (B, n, C)
    for i, array in enumerate(arrays):
        padded[i, : len(array)] = array
    return padded
