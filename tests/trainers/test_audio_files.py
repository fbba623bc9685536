"""Tests of effcap.trainers.data.audio.audio_files."""

from __future__ import annotations

import subprocess
import sys

import numpy as np
import pytest

from effcap.trainers.data.audio.audio_files import UnreadableAudio, read_audio
from helpers.audio_reference import melody

librosa = pytest.importorskip("librosa", reason="the extra audio is not installed")
soundfile = pytest.importorskip("soundfile", reason="the extra audio is not installed")


def two_channels(rate: int, seconds: float = 2) -> np.ndarray:
    samples = melody(rate, seconds)
    return np.stack([samples, 0.5 * samples], axis=1)


@pytest.mark.parametrize("rate", [16000, 44100, 11025])
def test_samples_match_librosa_load(rate, tmp_path):
    path = tmp_path / "song.wav"
    soundfile.write(path, two_channels(rate), rate)
    expected, _ = librosa.load(path, sr=16000, mono=True)
    received = read_audio(path)
    assert received.dtype == np.float32 and len(received) == 32000
    np.testing.assert_allclose(received, expected, atol=1e-6)


def test_channels_are_averaged_and_16_khz_is_not_resampled(tmp_path):
    soundfile.write(tmp_path / "song.wav", two_channels(16000), 16000, subtype="FLOAT")
    np.testing.assert_allclose(
        read_audio(tmp_path / "song.wav"), 0.75 * melody(16000, 2), atol=1e-6
    )


@pytest.mark.parametrize("suffix", ["flac", "ogg", "mp3"])
def test_compressed_files_keep_their_spectrum(suffix, tmp_path):
    path = tmp_path / f"song.{suffix}"
    soundfile.write(path, melody(16000, 2), 16000)
    received = read_audio(path)
    assert abs(len(received) - 32000) < 3000  # MP3 encoders may pad
    power = librosa.feature.melspectrogram(y=received, sr=16000, n_mels=20).mean(axis=1)
    expected = librosa.feature.melspectrogram(y=melody(16000, 2), sr=16000, n_mels=20).mean(axis=1)
    assert np.corrcoef(power, expected)[0, 1] > 0.99


def test_only_the_given_duration_is_read(tmp_path):
    soundfile.write(tmp_path / "song.flac", melody(8000, 5), 8000)
    whole = read_audio(tmp_path / "song.flac")
    assert len(whole) == 5 * 16000
    part = read_audio(tmp_path / "song.flac", duration=1.5)
    assert len(part) == 24000
    np.testing.assert_allclose(part[:23000], whole[:23000], atol=1e-5)


def write_wave(path, samples):
    soundfile.write(path, np.asarray(samples, np.float32), 16000, subtype="FLOAT")


@pytest.mark.parametrize(
    "name, content, reason",
    [
        ("gone.wav", None, "No such file"),
        ("empty.wav", b"", "its 0 bytes are not a complete WAV, FLAC, Ogg or MP3 file"),
        ("text.mp3", b"no music " * 300, "its 2,700 bytes are not a complete WAV"),
        ("samples.raw", b"\0" * 64, "its 64 bytes are not a complete WAV"),
        ("nan.wav", [0.0, np.nan, 0.0], "expected samples from -1 to 1.*peak of nan"),
        ("infinity.wav", [0.0, -np.inf], "expected samples from -1 to 1.*peak of inf"),
        ("integers.wav", [0.0, -32768.0, 4.0], "expected samples from -1 to 1.*peak of 3.28e"),
    ],
)
def test_unreadable_files_are_named_with_the_reason(name, content, reason, tmp_path):
    path = tmp_path / name
    if isinstance(content, bytes):
        path.write_bytes(content)
    elif content is not None:
        write_wave(path, content)
    with pytest.raises(UnreadableAudio, match=reason) as error:
        read_audio(path)
    assert str(error.value) == f"Cannot read audio {str(path)!r}: {error.value.reason}"
    assert error.value.audio == str(path)


def test_a_folder_is_unreadable(tmp_path):
    with pytest.raises(UnreadableAudio, match="Cannot read audio"):
        read_audio(tmp_path)


def test_a_truncated_flac_is_unreadable(tmp_path):
    path = tmp_path / "song.flac"
    soundfile.write(path, melody(16000, 5), 16000)
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    with pytest.raises(UnreadableAudio, match="not a complete WAV"):
        read_audio(path)


def test_a_file_without_samples_gives_no_samples(tmp_path):
    write_wave(tmp_path / "nothing.wav", [])
    assert read_audio(tmp_path / "nothing.wav").shape == (0,)


def test_missing_librosa_is_an_import_error_with_the_pip_command(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "librosa", None)  # makes importing it fail
    with pytest.raises(ImportError, match=r"pip install 'effcap\[audio\]'") as error:
        read_audio(tmp_path / "song.wav")
    assert "\n" not in str(error.value)


def test_reading_audio_imports_neither_keras_nor_tensorflow():
    code = (
        "import sys; from effcap.trainers.data.audio import UnreadableAudio, log_mel, read_audio; "
        "print(sorted({'keras', 'tensorflow', 'librosa'} & set(sys.modules)))"
    )
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert run.stdout.strip() == "[]"
