"""Inputs, weights and a reference mel spectrogram for the tests of audio features."""

from __future__ import annotations

import zlib

import numpy as np

KERNELS = {f"{layer}CNN": (3, 3, 1 if layer == 1 else 128, 128) for layer in range(1, 6)}
NORMS = {"batch_normalization": 1} | {f"batch_normalization_{i}": 128 for i in range(1, 6)}


def windows() -> np.ndarray:
    """Returns (2, 187, 96) float32 spectrogram windows of smooth waves."""
    time, band = np.arange(2 * 187)[:, None], np.arange(96)[None]
    waves = np.sin(time * (band + 1) / 61) + np.cos(time / (band + 3)) + np.sin(band * band / 7)
    return np.maximum(2 + waves, 0).astype(np.float32).reshape(2, 187, 96)


def seeded() -> dict[str, np.ndarray]:
    """Returns seeded weights by the checkpoint's names, the same on every machine."""
    shapes = {}
    for layer, shape in KERNELS.items():
        shapes |= {f"{layer}/kernel": shape, f"{layer}/bias": shape[-1:]}
    for layer, channels in NORMS.items():
        for part in ("gamma", "beta", "moving_mean", "moving_variance"):
            shapes[f"{layer}/{part}"] = (channels,)
    weights = {}
    for name, shape in shapes.items():
        draws = np.random.default_rng(zlib.crc32(name.encode())).random(shape) - 0.5
        if name.endswith("kernel"):
            draws *= 4 / np.sqrt(np.prod(shape[:3]))
        elif name.endswith(("gamma", "moving_variance")):
            draws += 1
        weights[name] = draws.astype(np.float32)
    return weights


def melody(rate: int, seconds: float) -> np.ndarray:
    """Returns (samples,) float32 audio: chords that change every half second, and a drum."""
    time = np.arange(int(rate * seconds)) / rate
    chord = 220 * 2 ** ((np.floor(2 * time) * 5 % 12) / 12)
    tones = sum(np.sin(2 * np.pi * chord * k * time) / k for k in (1, 1.5, 2, 4))
    drum = np.sin(2 * np.pi * 60 * time) * np.exp(-12 * (time % 0.5))
    return (0.1 * tones + 0.3 * drum).astype(np.float32)


def mel_spectrogram(samples: np.ndarray) -> np.ndarray:
    """Returns a (frames, 96) power spectrogram.

    The ends are mirrored, the windows Hann, and the mel bands Slaney's, of equal area.
    """
    padded = np.pad(samples.astype(np.float64), 256, mode="reflect")
    starts = np.arange(0, len(padded) - 511, 256)
    hann = 0.5 - 0.5 * np.cos(2 * np.pi * np.arange(512) / 512)
    frames = padded[starts[:, None] + np.arange(512)] * hann  # (frames,512)
    power = np.abs(np.fft.rfft(frames)) ** 2  # (frames,257)

    # Slaney's scale: 15 mel per kHz up to 1 kHz, from there 27 mel for every factor of 6.4.
    top = 15 + 27 * np.log(8) / np.log(6.4)
    mels = np.linspace(0, top, 98)
    edges = np.where(mels < 15, mels * 200 / 3, 1000 * 6.4 ** ((mels - 15) / 27))  # Hz
    hertz = np.arange(257) * 16000 / 512
    low, middle, high = edges[:-2, None], edges[1:-1, None], edges[2:, None]
    bands = np.minimum((hertz - low) / (middle - low), (high - hertz) / (high - middle))
    bands = np.maximum(bands, 0) * 2 / (high - low)  # (96,257)
    return power @ bands.T
