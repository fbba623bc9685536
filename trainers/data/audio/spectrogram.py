"""Computes log-mel spectrograms and splits them into windows for MSD_vgg."""

from __future__ import annotations

import numpy as np

from effcap.trainers.data.audio.audio_files import SAMPLE_RATE, audio_packages

FFT_SIZE, HOP, NUM_MELS = 512, 256, 96
WINDOW = 187  # frames, three seconds
MIN_SAMPLES = (WINDOW - 1) * HOP  # of one window


def log_mel(samples: np.ndarray) -> np.ndarray:
    """Computes log10(1 + 10000 m) of the mel spectrogram m, as musicnn's networks expect it.

    Power spectra of 512 samples under a Hann window, every 256 samples, in 96 Slaney mel bands
    from 0 to 8 kHz. Both ends of the samples are padded by reflection, the default of librosa
    before 0.9. All arithmetic is in float32 as in PlayNTell's extraction; musicnn rounds m to
    float16, in which loud music overflows.

    Args:
        samples: (samples,) float32 at 16 kHz.

    Returns:
        (frames, 96) float32 with 1 + samples // 256 frames.

    Raises:
        ImportError: librosa or soundfile is not installed.
    """
    librosa, _ = audio_packages()
    mel = librosa.feature.melspectrogram(
        y=samples,
        sr=SAMPLE_RATE,
        n_fft=FFT_SIZE,
        hop_length=HOP,
        n_mels=NUM_MELS,
        pad_mode="reflect",
    )  # (96, frames)
    return np.log10(1 + 10_000 * mel.T).astype(np.float32)  # (frames, 96)


def split_windows(spectrogram: np.ndarray) -> np.ndarray:
    """Splits (frames, 96) into consecutive windows (N, 187, 96); the remainder is dropped."""
    count = len(spectrogram) // WINDOW
    return spectrogram[: count * WINDOW].reshape(count, WINDOW, spectrogram.shape[1])  # (N,187,96)
