"""Loader of playlist features, and their check before training."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor

import numpy as np

from effcap.images import UnreadablePhoto
from effcap.trainers.data.example import Example, Problem
from effcap.trainers.data.playlists.arrays import PlaylistArrays, UnreadableArray, pad_arrays
from effcap.utils.progress import track


class PlaylistInputs:
    """Loads the encoder's inputs for batches of playlists (an `InputLoader`).

    Args:
        arrays: features of playlists.
        playlists: ids of the playlists, by index.
        modalities: feature dimension C by modality.
        num_rows: rows n that each modality is padded to.
        fingerprint: hash of the features.
    """

    can_flip = False

    def __init__(
        self,
        arrays: PlaylistArrays,
        playlists: Sequence[str],
        modalities: Mapping[str, int],
        num_rows: Mapping[str, int],
        fingerprint: str,
    ):
        self.arrays, self.playlists, self.modalities = arrays, playlists, modalities
        self.num_rows, self.fingerprint = num_rows, fingerprint

    def load(
        self, indices: np.ndarray, flip: np.ndarray, draws: np.ndarray | None = None
    ) -> dict[str, np.ndarray]:
        """Reads the features of playlists.

        Args:
            indices: (B,) indices of playlists.
            flip: ignored.
            draws: ignored.

        Returns:
            (B, n, C) float32 by modality, padded with rows of zeros. n is the same for all batches.

        Raises:
            UnreadablePhoto: features have become unusable since they were checked.
        """
        return {
            modality: pad_arrays(
                [self._read(self.playlists[index], modality, dim) for index in indices],
                dim,
                self.num_rows[modality],
            )  # (B, n, C)
            for modality, dim in self.modalities.items()
        }

    def _read(self, playlist: str, modality: str, feature_dim: int) -> np.ndarray:
        """Returns (n, C) with n at most `num_rows`."""
        where, limit = f"{modality} of playlist {playlist}", self.num_rows[modality]
        try:
            array = self.arrays.read(modality, playlist, feature_dim)  # (n, C)
        except UnreadableArray as error:
            raise UnreadablePhoto(where, error.reason) from error
        if len(array) > limit:
            reason = f"expected at most {limit} rows, as when checked. Received: {len(array)}"
            raise UnreadablePhoto(where, reason)
        return array


def check_features(
    examples: Sequence[Example],
    arrays: PlaylistArrays,
    modalities: Mapping[str, int],
    title: str | None = None,
) -> tuple[list[Example], PlaylistInputs, list[Problem]]:
    """Reads the features of every playlist once, in parallel.

    Args:
        examples: playlists with captions; their names are the playlists' ids.
        arrays: features of the playlists.
        modalities: feature dimension by modality, as the encoder takes them.
        title: title of the progress bar. None shows none.

    Returns:
        (playlists with usable features, their loader, problems of the others).
    """

    def check(example: Example) -> tuple[dict[str, int], bytes, Problem | None]:
        """Returns (number of rows by modality, digest of the features, problem)."""
        digest, num_rows = hashlib.blake2b(digest_size=16), {}
        try:
            for modality, feature_dim in modalities.items():
                array = arrays.read(modality, example.name, feature_dim)  # (n, C)
                num_rows[modality] = len(array)
                digest.update(repr((modality, array.shape)).encode() + array.tobytes())
        except UnreadableArray as error:
            where, reason = f"playlist {example.name}", f"{error.modality}: {error.reason}"
            return {}, b"", Problem(where, reason, len(example.captions))
        return num_rows, digest.digest(), None

    pool = ThreadPoolExecutor(os.cpu_count() or 1)
    try:
        checked = list(track(pool.map(check, examples), len(examples), title))
    finally:
        pool.shutdown(cancel_futures=True)
    usable = [
        example for example, (*_, problem) in zip(examples, checked, strict=True) if problem is None
    ]
    longest = {name: max([1, *(rows.get(name, 0) for rows, *_ in checked)]) for name in modalities}
    state = hashlib.sha256(repr((dict(modalities), longest)).encode())
    for _, digest, _ in checked:
        state.update(digest)
    names = [example.name for example in usable]
    loader = PlaylistInputs(arrays, names, modalities, longest, state.hexdigest())
    return usable, loader, [problem for *_, problem in checked if problem is not None]
