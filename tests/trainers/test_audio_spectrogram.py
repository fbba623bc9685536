"""Tests of effcap.trainers.data.audio.spectrogram."""

from __future__ import annotations

import numpy as np
import pytest

from effcap.trainers.data.audio.spectrogram import MIN_SAMPLES, log_mel, split_windows
from helpers.audio_reference import mel_spectrogram, melody

pytest.importorskip("librosa", reason="the extra audio is not installed")


def noise(samples: int, size: float) -> np.ndarray:
    return (size * np.random.default_rng(0).normal(size=samples)).astype(np.float32)


@pytest.mark.parametrize(
    "samples",
    [melody(16000, 3), noise(20000, 0.3), noise(20000, 1e-3), np.zeros(9000, np.float32)],
    ids=["melody", "noise", "quiet", "silence"],
)
def test_log_mel_matches_the_formula(samples):
    expected = np.log10(1 + 10000 * mel_spectrogram(samples))
    received = log_mel(samples)
    assert received.dtype == np.float32 and received.shape == (1 + len(samples) // 256, 96)
    np.testing.assert_allclose(received, expected, atol=3e-5)


def test_loud_music_stays_finite():
    samples = np.sign(melody(16000, 1)).astype(np.float32)
    assert (mel_spectrogram(samples).max() * 10000) > np.finfo(np.float16).max
    assert np.isfinite(log_mel(samples)).all()


def test_thirty_seconds_give_ten_windows():
    assert split_windows(log_mel(np.zeros(30 * 16000, np.float32))).shape == (10, 187, 96)


def test_the_shortest_audio_gives_one_window_and_less_gives_none():
    assert split_windows(log_mel(np.zeros(MIN_SAMPLES, np.float32))).shape == (1, 187, 96)
    assert split_windows(log_mel(np.zeros(MIN_SAMPLES - 1, np.float32))).shape == (0, 187, 96)


def test_windows_are_consecutive_and_the_remainder_is_dropped():
    frames = np.arange(400 * 96).reshape(400, 96)
    windows = split_windows(frames)
    np.testing.assert_array_equal(windows[0], frames[:187])
    np.testing.assert_array_equal(windows[1], frames[187:374])
    assert len(windows) == 2
