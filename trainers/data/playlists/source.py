"""Features of playlists: checked once, and read when a batch asks for them."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

import numpy as np

from effcap.images import UnreadablePhoto
from effcap.trainers.data.example import CaptionedPhoto, Problem
from effcap.trainers.data.playlists.arrays import BadArray, PlaylistArrays, pad_arrays
from effcap.utils.progress import track

if TYPE_CHECKING:
    from effcap.caption import Caption
    from effcap.captioner import Captioner
    from effcap.samplers.base import Sampler


class PlaylistSource:
    """Reads features of playlists when a batch asks for them; see `Source` in `batches`.

    Args:
        arrays: the features.
        playlists: ids, in the order in which batches number them.
        modalities: width of each, by name.
        rows: number of rows that each modality is padded to.
        fingerprint: a hash of the features.
    """

    mirrored = False

    def __init__(
        self,
        arrays: PlaylistArrays,
        playlists: Sequence[str],
        modalities: Mapping[str, int],
        rows: Mapping[str, int],
        fingerprint: str,
    ):
        self.arrays, self.playlists, self.modalities = arrays, playlists, modalities
        self.rows, self.fingerprint = rows, fingerprint

    def load(
        self, photos: np.ndarray, mirror: np.ndarray, draws: np.ndarray | None = None
    ) -> dict[str, np.ndarray]:
        """(B, n, C) by modality of playlists (B,), with rows of zeros below the shorter ones.

        n is the same in all batches; `mirror` and `draws` do nothing.

        Raises:
            UnreadablePhoto: for features that have become unusable since they were checked.
        """
        return {
            modality: pad_arrays(
                [self._read(self.playlists[number], modality, width) for number in photos],
                width,
                self.rows[modality],
            )  # (B,n,C)
            for modality, width in self.modalities.items()
        }

    def _read(self, playlist: str, modality: str, width: int) -> np.ndarray:
        """(n, C), n at most as it was."""
        try:
            array = self.arrays.read(modality, playlist, width)
        except BadArray as error:
            raise UnreadablePhoto(f"{modality} of playlist {playlist}", error.reason) from error
        if len(array) > self.rows[modality]:
            reason = f"expected at most {self.rows[modality]} rows. Received: {len(array)} by now"
            raise UnreadablePhoto(f"{modality} of playlist {playlist}", reason)
        return array


def check_playlists(
    photos: Sequence[CaptionedPhoto],
    arrays: PlaylistArrays,
    modalities: Mapping[str, int],
    threads: int | None = None,
    title: str | None = None,
) -> tuple[list[CaptionedPhoto], PlaylistSource, list[Problem]]:
    """Reads the features of every playlist once, several at a time.

    Args:
        photos: playlists with captions, called by their ids.
        arrays: their features.
        modalities: that are to be used, and their widths.
        threads: playlists read at the same time; by default one per core.
        title: of a progress bar; None for no bar.

    Returns:
        (playlists whose features can be used, their source, what is wrong with the others).
    """

    def check(photo: CaptionedPhoto) -> tuple[dict[str, int], bytes, Problem | None]:
        digest, rows = hashlib.blake2b(digest_size=16), {}
        try:
            for modality, width in modalities.items():
                array = arrays.read(modality, photo.name, width)  # (n,C)
                rows[modality] = len(array)
                digest.update(repr((modality, array.shape)).encode() + array.tobytes())
        except BadArray as error:
            where = f"playlist {photo.name}"
            return {}, b"", Problem(where, f"{error.modality}: {error.reason}", len(photo.captions))
        return rows, digest.digest(), None

    pool = ThreadPoolExecutor(threads or os.cpu_count() or 1)
    try:
        checked = list(track(pool.map(check, photos), len(photos), title))
    finally:
        pool.shutdown(cancel_futures=True)
    good = [photo for photo, (*_, problem) in zip(photos, checked, strict=True) if problem is None]
    longest = {name: max([1, *(rows.get(name, 0) for rows, *_ in checked)]) for name in modalities}
    state = hashlib.sha256(repr((dict(modalities), longest)).encode())
    for _, digest, _ in checked:
        state.update(digest)
    names = [photo.name for photo in good]
    source = PlaylistSource(arrays, names, modalities, longest, state.hexdigest())
    return good, source, [problem for *_, problem in checked if problem is not None]


def caption_source(
    captioner: Captioner, source: PlaylistSource, sampler: Sampler | None, batch_size: int
) -> Iterator[list[Caption]]:
    """What a captioner writes of each playlist, best first, as it stands in the tokens.

    Args:
        captioner: one of playlists.
        source: of their features.
        sampler: of `effcap.samplers`; `Beam()` by default.
        batch_size: playlists captioned at once.
    """
    for start in range(0, len(source.playlists), batch_size):
        photos = np.arange(start, min(start + batch_size, len(source.playlists)))  # (B,)
        inputs = source.load(photos, np.zeros(len(photos), bool))
        yield from captioner.generate_batch(inputs, sampler, batch_size)
