"""Computes the audio features of tracks, 256 numbers each, as in PlayNTell."""

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
from effcap.trainers.data.audio.msd_vgg import MSDVGG, NUM_FEATURES
from effcap.trainers.data.audio.msd_vgg_weights import load_msd_vgg
from effcap.trainers.data.audio.spectrogram import (
    MIN_SAMPLES,
    NUM_MELS,
    WINDOW,
    log_mel,
    split_windows,
)

BATCH_SIZE = 10  # windows, as many as 30 seconds have


class AudioFeatures:
    """Audio features as in PlayNTell (Gabbolini et al., "Data-Efficient Playlist Captioning With
    Musical and Linguistic Knowledge", EMNLP 2022).

    The first 30 seconds of a track are split into ten windows. The output of MSD_vgg's last
    pooling layer is averaged over them.

    Args:
        weights: path of the trained weights, as in `load_msd_vgg` (default: the installed package
            musicnn).
        pooling: as in `MSDVGG`: "trained" (default), or "musicnn" for captioners trained on the
            features of PlayNTell's own extraction.

    Raises:
        FileNotFoundError: there are no weights; the message names the package to install.
        ImportError: librosa or soundfile is not installed.
        ValueError: the weights do not fit, or `pooling` is unknown.

    Example:
        >>> AudioFeatures().features(["first.mp3", "second.flac"]).shape
        (2, 256)
    """

    def __init__(self, weights: str | os.PathLike | None = None, pooling: str = "trained") -> None:
        audio_packages()
        self.network = MSDVGG(pooling)
        load_msd_vgg(self.network, weights)
        self.network.compile(jit_compile=keras.backend.backend() == "jax")

    def features(self, paths: Iterable[str | os.PathLike]) -> np.ndarray:
        """Computes the features of N tracks.

        Args:
            paths: audio files, as in `read_audio`. Of a track shorter than 30 seconds, all
                complete windows are used.

        Returns:
            (N, 256) float32.

        Raises:
            UnreadableAudio: a file cannot be read or is shorter than a window.
        """
        rows = []
        for row in self.iter_features(paths):
            if isinstance(row, UnreadableAudio):
                raise row
            rows.append(row)
        return np.stack(rows) if rows else np.empty((0, NUM_FEATURES), np.float32)  # (N,256)

    def iter_features(
        self, paths: Iterable[str | os.PathLike]
    ) -> Iterator[np.ndarray | UnreadableAudio]:
        """Yields the features (256,) of each track, or the error if it cannot be read.

        Files are prefetched in threads.

        Raises:
            ValueError: `paths` is a single path.
        """
        if isinstance(paths, str | os.PathLike):
            raise ValueError(f"Expected several paths, such as a list. Received: {paths!r}")
        with ThreadPoolExecutor(os.cpu_count()) as pool:
            pending: deque[Future] = deque()
            for path in paths:
                pending.append(pool.submit(_read_windows, path))
                if len(pending) > 2 * (os.cpu_count() or 1):
                    yield self._row(pending.popleft().result())
            while pending:
                yield self._row(pending.popleft().result())

    def pool5(self, windows: np.ndarray) -> np.ndarray:
        """Computes the network's output for windows.

        Args:
            windows: (N, 187, 96), from `split_windows(log_mel(samples))`.

        Returns:
            (N, 256) float32.

        Raises:
            ValueError: the windows have another shape.
        """
        if np.ndim(windows) != 3 or np.shape(windows)[1:] != (WINDOW, NUM_MELS):
            raise ValueError(
                f"Expected windows of shape (N, {WINDOW}, {NUM_MELS}). "
                f"Received: shape {np.shape(windows)}"
            )
        outputs = [
            self.network.predict_on_batch(
                np.asarray(windows[start : start + BATCH_SIZE], np.float32)
            )
            for start in range(0, len(windows), BATCH_SIZE)
        ]
        return np.concatenate([np.empty((0, NUM_FEATURES), np.float32), *outputs])  # (N,256)

    def _row(self, windows: np.ndarray | UnreadableAudio) -> np.ndarray | UnreadableAudio:
        """Averages the features of a track's windows, unless it could not be read."""
        if isinstance(windows, UnreadableAudio):
            return windows
        return self.pool5(windows).mean(axis=0)  # (N,256) -> (256,)


def _read_windows(path: str | os.PathLike) -> np.ndarray | UnreadableAudio:
    """Returns the windows (N, 187, 96) of a file's first 30 seconds, or the error."""
    try:
        samples = read_audio(path)
    except UnreadableAudio as error:
        return error
    if len(samples) < MIN_SAMPLES:
        return UnreadableAudio(
            str(path),
            f"expected at least {MIN_SAMPLES / SAMPLE_RATE:.3f} s. "
            f"Received: {len(samples) / SAMPLE_RATE:.3f} s",
        )
    return split_windows(log_mel(samples))
