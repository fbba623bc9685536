"""Tests of effcap.trainers.data.audio.track_features."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import numpy as np
import pytest

from effcap.trainers.data.audio import track_features as module
from effcap.trainers.data.audio.audio_files import UnreadableAudio
from effcap.trainers.data.audio.msd_vgg_weights import fill_from_checkpoint
from effcap.trainers.data.audio.track_features import AudioFeatures
from helpers.audio_reference import mel_spectrogram, melody, seeded

soundfile = pytest.importorskip("soundfile", reason="the extra audio is not installed")
pytest.importorskip("librosa", reason="the extra audio is not installed")

REFERENCE = Path(__file__).resolve().parents[1] / "data" / "msd_vgg_reference.npz"
needs_weights = pytest.mark.skipif(
    importlib.util.find_spec("musicnn") is None,
    reason="the trained weights are not installed: pip install --no-deps musicnn==0.1.0",
)


@pytest.fixture(scope="module")
def audio_features() -> AudioFeatures:
    """Returns audio features of a network with seeded weights."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(
            module, "load_msd_vgg", lambda model, _: fill_from_checkpoint(model, seeded())
        )
        return AudioFeatures()


def write_song(path: Path, seconds: float, pitch: float = 1.0) -> Path:
    rate = int(16000 * pitch)
    soundfile.write(path, melody(rate, seconds * pitch)[: int(seconds * 16000)], 16000)
    return path


def expected_row(audio_features: AudioFeatures, seconds: float) -> np.ndarray:
    """Computes (256,) features of the melody window by window."""
    spectrogram = np.log10(1 + 10000 * mel_spectrogram(melody(16000, seconds)))  # (frames,96)
    starts = range(0, len(spectrogram) - 186, 187)
    rows = [audio_features.pool5(spectrogram[start : start + 187][None])[0] for start in starts]
    return np.mean(rows, axis=0)


@needs_weights
@pytest.mark.parametrize("pooling", ["trained", "musicnn"])
def test_features_of_a_track_match_the_stored_graph(pooling, tmp_path):
    soundfile.write(tmp_path / "song.wav", melody(16000, 12), 16000, subtype="FLOAT")
    received = AudioFeatures(pooling=pooling).features([tmp_path / "song.wav"])
    expected = np.load(REFERENCE)[f"{pooling}_track"]
    np.testing.assert_allclose(received, expected[None], rtol=0, atol=1e-4)


def test_features_are_the_mean_over_complete_windows(audio_features, tmp_path):
    soundfile.write(tmp_path / "song.wav", melody(16000, 8), 16000, subtype="FLOAT")
    received = audio_features.features([tmp_path / "song.wav"])
    assert received.shape == (1, 256) and received.dtype == np.float32
    np.testing.assert_allclose(received[0], expected_row(audio_features, 8), atol=1e-3)


def test_only_the_first_thirty_seconds_are_used(audio_features, tmp_path):
    samples = melody(16000, 35)
    soundfile.write(tmp_path / "long.wav", samples, 16000)
    soundfile.write(tmp_path / "cut.wav", samples[: 30 * 16000], 16000)
    long, cut = audio_features.features([tmp_path / "long.wav", tmp_path / "cut.wav"])
    np.testing.assert_array_equal(long, cut)


def test_tracks_keep_their_order(audio_features, tmp_path):
    paths = [write_song(tmp_path / f"{i}.wav", 3.1, 1 + i / 9) for i in range(9)]
    together = audio_features.features(paths)
    assert together.shape == (9, 256)
    for path, row in zip(paths, together, strict=True):
        np.testing.assert_allclose(audio_features.features([path])[0], row, atol=1e-5)
    assert len(np.unique(together.round(2), axis=0)) == 9


def test_no_tracks_give_no_features(audio_features):
    assert audio_features.features([]).shape == (0, 256)


def test_unreadable_tracks_yield_the_error(audio_features, tmp_path):
    good = write_song(tmp_path / "good.wav", 3.1)
    short = write_song(tmp_path / "short.wav", 1.5)
    gone = tmp_path / "gone.wav"
    rows = list(audio_features.iter_features([short, good, gone]))
    assert [isinstance(row, UnreadableAudio) for row in rows] == [True, False, True]
    assert rows[0].audio == str(short)
    assert rows[0].reason == "expected at least 2.976 s. Received: 1.500 s"
    assert rows[1].shape == (256,)
    assert rows[2].audio == str(gone)
    with pytest.raises(UnreadableAudio, match="gone.wav"):
        audio_features.features([good, gone])


def test_features_of_silence_are_not_zero(audio_features, tmp_path):
    soundfile.write(tmp_path / "silence.wav", np.zeros(50000), 16000)
    assert np.abs(audio_features.features([tmp_path / "silence.wav"])).max() > 0


def test_a_single_path_is_an_error(audio_features):
    with pytest.raises(ValueError, match="Expected several paths.*Received: 'song.wav'"):
        audio_features.features("song.wav")


@pytest.mark.parametrize("shape", [(187, 96), (1, 186, 96), (1, 187, 128)])
def test_windows_of_another_shape_are_an_error(shape, audio_features):
    with pytest.raises(ValueError, match=r"windows of shape \(N, 187, 96\). Received: shape"):
        audio_features.pool5(np.zeros(shape))


def test_windows_beyond_one_batch_give_the_same_features_as_alone(audio_features):
    windows = np.random.default_rng(0).random((13, 187, 96), np.float32)
    received = audio_features.pool5(windows)
    assert received.shape == (13, 256)
    alone = np.concatenate([audio_features.pool5(window[None]) for window in windows])
    np.testing.assert_allclose(received, alone, atol=1e-5)
