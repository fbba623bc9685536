"""Samples as log-mel spectrograms, and these as the windows that the network takes."""

from __future__ import annotations

import numpy as np

from effcap.trainers.data.audio.audio_files import SAMPLE_RATE, audio_packages

FFT, HOP, MELS = 512, 256, 96
WINDOW = 187  # frames: three seconds
SHORTEST = (WINDOW - 1) * HOP  # samples that give one window


def log_mel(samples: np.ndarray) -> np.ndarray:
    """log10(1 + 10000 m) of the mel spectrogram m, as musicnn's networks were trained on it.

    Power spectra of 512 samples under a Hann window every 256, in 96 Slaney mel bands from 0 to
    8 kHz. Two things are said here that musicnn leaves to its surroundings: the first frame sees
    the samples before the beginning as their mirror image, which was librosa's default then (it
    is zeros since 0.9); and all is float32, as in PlayNTell's extraction (musicnn rounds m to
    float16, in which loud music overflows).

    Args:
        samples: (samples,) float32 at 16 kHz.

    Returns:
        (frames, 96) float32; 1 + samples // 256 frames.

    Raises:
        ValueError: without the packages of the extra `audio`.
    """
    librosa, _ = audio_packages()
    mel = librosa.feature.melspectrogram(
        y=samples, sr=SAMPLE_RATE, n_fft=FFT, hop_length=HOP, n_mels=MELS, pad_mode="reflect"
    )  # (96, frames)
    return np.log10(1 + 10_000 * mel.T).astype(np.float32)  # (frames, 96)


def split_windows(spectrogram: np.ndarray) -> np.ndarray:
    """(frames, 96) into (N, 187, 96), one after the other; what is left at the end is dropped."""
    count = len(spectrogram) // WINDOW
    return spectrogram[: count * WINDOW].reshape(count, WINDOW, spectrogram.shape[1])  # (N,187,96)
