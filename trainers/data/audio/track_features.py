"""What PlayNTell hears of a track: 256 numbers."""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor

import keras
import numpy as np

from effcap.trainers.data.audio.audio_files import (
    SAMPLE_RATE,
    UnreadableAudio,
    audio_packages,
    read_audio,
)
from effcap.trainers.data.audio.msd_vgg import FEATURES, MSDVGG
from effcap.trainers.data.audio.msd_vgg_weights import load_msd_vgg
from effcap.trainers.data.audio.spectrogram import MELS, SHORTEST, WINDOW, log_mel, split_windows

WINDOWS = 10  # in thirty seconds; the network takes as many at once


class AudioFeatures:
    """Features of music as in PlayNTell (Gabbolini et al., "Data-Efficient Playlist Captioning With
    Musical and Linguistic Knowledge", EMNLP 2022).

    The first 30 seconds of a track, cut into ten windows, go through MSD_vgg; the output of its
    last pooling layer is averaged over the windows.

    Args:
        weights: where the trained weights are, as in `load_msd_vgg`; None (default) means the
            installed package musicnn.
        pooling: as in `MSDVGG`: "trained" (default), or "musicnn" for captioners that PlayNTell's
            own extraction fed.

    Raises:
        FileNotFoundError: no weights there; the message says what to install.
        ValueError: weights that do not fit, another `pooling`, or the packages of the extra
            `audio` are missing.

    Example:
        listener = AudioFeatures()
        listener.features(["first.mp3", "second.flac"])  # (2, 256)
    """

    def __init__(self, weights: str | os.PathLike | None = None, pooling: str = "trained"):
        audio_packages()
        self.network = MSDVGG(pooling)
        load_msd_vgg(self.network, weights)
        self.network.compile(jit_compile=keras.backend.backend() == "jax")

    def features(self, paths: Iterable[str | os.PathLike]) -> np.ndarray:
        """Features of n tracks: (n, 256) float32.

        Args:
            paths: audio files, as in `read_audio`. Of less than 30 seconds all whole windows
                count.

        Raises:
            UnreadableAudio: for the first file that cannot be read or is shorter than a window.
        """
        rows = []
        for row in self.each(paths):
            if isinstance(row, UnreadableAudio):
                raise row
            rows.append(row)
        return np.stack(rows) if rows else np.empty((0, FEATURES), np.float32)  # (n,256)

    def each(self, paths: Iterable[str | os.PathLike]) -> Iterator[np.ndarray | UnreadableAudio]:
        """As `features`, one track after the other: its (256,), or why it cannot be read.

        (The encoder masks a row of zeros, so that one can stand for a track that is missing.)
        """
        if isinstance(paths, str | os.PathLike):
            raise ValueError(f"Expected several paths, such as a list. Received: {paths!r}")
        with ThreadPoolExecutor(os.cpu_count()) as pool:
            ahead: deque[Future] = deque()
            for path in paths:
                ahead.append(pool.submit(_windows_or_error, path))
                if len(ahead) > 2 * (os.cpu_count() or 1):
                    yield self._row(ahead.popleft().result())
            while ahead:
                yield self._row(ahead.popleft().result())

    def pool5(self, windows: np.ndarray) -> np.ndarray:
        """What the network makes of windows.

        Args:
            windows: (N, 187, 96), as `split_windows(log_mel(samples))` gives them.

        Returns:
            (N, 256) float32.

        Raises:
            ValueError: for another shape.
        """
        if np.ndim(windows) != 3 or np.shape(windows)[1:] != (WINDOW, MELS):
            raise ValueError(
                f"windows must be (N, {WINDOW}, {MELS}). Received: shape {np.shape(windows)}"
            )
        parts = [
            self.network.predict_on_batch(np.asarray(windows[start : start + WINDOWS], np.float32))
            for start in range(0, len(windows), WINDOWS)
        ]
        return np.concatenate([np.empty((0, FEATURES), np.float32), *parts])  # (N,256)

    def _row(self, windows: np.ndarray | UnreadableAudio) -> np.ndarray | UnreadableAudio:
        if isinstance(windows, UnreadableAudio):
            return windows
        return self.pool5(windows).mean(axis=0)  # (N,256) -> (256,)


def _windows_or_error(path: str | os.PathLike) -> np.ndarray | UnreadableAudio:
    """(N, 187, 96) of a file's first 30 seconds."""
    try:
        samples = read_audio(path)
    except UnreadableAudio as error:
        return error
    if len(samples) < SHORTEST:
        return UnreadableAudio(
            str(path),
            f"expected at least {SHORTEST / SAMPLE_RATE:.3f} s. "
            f"Received: {len(samples) / SAMPLE_RATE:.3f} s",
        )
    return split_windows(log_mel(samples))
