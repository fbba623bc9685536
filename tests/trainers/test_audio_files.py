"""Tests of effcap.trainers.data.audio.audio_files."""

from __future__ import annotations

import subprocess
import sys

import numpy as np
import pytest
from helpers.audio_reference import melody

from effcap.trainers.data.audio.audio_files import UnreadableAudio, read_audio

librosa = pytest.importorskip("librosa", reason="the extra audio is not installed")
soundfile = pytest.importorskip("soundfile", reason="the extra audio is not installed")


def two_channels(rate: int, seconds: float = 2) -> np.ndarray:
    samples = melody(rate, seconds)
    return np.stack([samples, 0.5 * samples], axis=1)


@pytest.mark.parametrize("rate", [16000, 44100, 11025])
def test_samples_are_those_that_librosa_loads(rate, tmp_path):
    path = tmp_path / "song.wav"
    soundfile.write(path, two_channels(rate), rate)
    expected, _ = librosa.load(path, sr=16000, mono=True)
    found = read_audio(path)
    assert found.dtype == np.float32 and len(found) == 32000
    np.testing.assert_allclose(found, expected, atol=1e-6)


def test_channels_are_averaged_and_the_rate_of_16_khz_is_left_alone(tmp_path):
    soundfile.write(tmp_path / "song.wav", two_channels(16000), 16000, subtype="FLOAT")
    np.testing.assert_allclose(
        read_audio(tmp_path / "song.wav"), 0.75 * melody(16000, 2), atol=1e-6
    )


@pytest.mark.parametrize("suffix", ["flac", "ogg", "mp3"])
def test_compressed_files_sound_as_they_did(suffix, tmp_path):
    path = tmp_path / f"song.{suffix}"
    soundfile.write(path, melody(16000, 2), 16000)
    found = read_audio(path)
    assert abs(len(found) - 32000) < 3000  # an encoder of MP3 may pad
    power = librosa.feature.melspectrogram(y=found, sr=16000, n_mels=20).mean(axis=1)
    expected = librosa.feature.melspectrogram(y=melody(16000, 2), sr=16000, n_mels=20).mean(axis=1)
    assert np.corrcoef(power, expected)[0, 1] > 0.99


def test_no_more_than_the_beginning_is_read(tmp_path):
    soundfile.write(tmp_path / "song.flac", melody(8000, 5), 8000)
    whole = read_audio(tmp_path / "song.flac")
    assert len(whole) == 5 * 16000
    part = read_audio(tmp_path / "song.flac", seconds=1.5)
    assert len(part) == 24000
    np.testing.assert_allclose(part[:23000], whole[:23000], atol=1e-5)


def write_wave(path, samples):
    soundfile.write(path, np.asarray(samples, np.float32), 16000, subtype="FLOAT")


@pytest.mark.parametrize(
    "name, content, reason",
    [
        ("gone.wav", None, "No such file"),
        ("empty.wav", b"", "expected a whole WAV, FLAC, Ogg or MP3 file.*Received: 0 bytes"),
        ("text.mp3", b"no music " * 300, "Received: 2,700 bytes that cannot be decoded"),
        ("samples.raw", b"\0" * 64, "Received: 64 bytes that cannot be decoded"),
        ("nan.wav", [0.0, np.nan, 0.0], "expected samples from -1 to 1.*size nan"),
        ("infinity.wav", [0.0, -np.inf], "expected samples from -1 to 1.*size inf"),
        ("integers.wav", [0.0, -32768.0, 4.0], "expected samples from -1 to 1.*3.28e"),
    ],
)
def test_a_file_that_cannot_be_read_is_named_with_the_reason(name, content, reason, tmp_path):
    path = tmp_path / name
    if isinstance(content, bytes):
        path.write_bytes(content)
    elif content is not None:
        write_wave(path, content)
    with pytest.raises(UnreadableAudio, match=reason) as error:
        read_audio(path)
    assert str(error.value) == f"Cannot read audio {str(path)!r}: {error.value.reason}"
    assert error.value.audio == str(path)


def test_a_folder_is_no_audio(tmp_path):
    with pytest.raises(UnreadableAudio, match="Cannot read audio"):
        read_audio(tmp_path)


def test_a_truncated_flac_is_unreadable(tmp_path):
    path = tmp_path / "song.flac"
    soundfile.write(path, melody(16000, 5), 16000)
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    with pytest.raises(UnreadableAudio, match="expected a whole"):
        read_audio(path)


def test_a_file_without_samples_gives_none(tmp_path):
    write_wave(tmp_path / "nothing.wav", [])
    assert read_audio(tmp_path / "nothing.wav").shape == (0,)


def test_without_librosa_one_line_names_the_extra(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "librosa", None)  # makes importing it fail
    with pytest.raises(ValueError, match=r"pip install 'effcap\[audio\]'") as error:
        read_audio(tmp_path / "song.wav")
    assert not isinstance(error.value, UnreadableAudio) and "\n" not in str(error.value)


def test_reading_and_its_errors_need_neither_keras_nor_tensorflow():
    code = (
        "import sys; from effcap.trainers.data.audio import UnreadableAudio, log_mel, read_audio; "
        "print(sorted({'keras', 'tensorflow', 'librosa'} & set(sys.modules)))"
    )
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert run.stdout.strip() == "[]"
