"""Audio files as samples, through soundfile and librosa (the extra `audio`)."""

from __future__ import annotations

from os import PathLike
from pathlib import Path
from types import ModuleType

import numpy as np

SAMPLE_RATE = 16_000
SECONDS = 30.0
LOUDEST = 16  # times full scale; what is louder was written in another unit


class UnreadableAudio(ValueError):
    """An audio file that is missing, damaged, too short, or no audio.

    Attributes:
        audio: its path.
        reason: what was expected and what was found.
    """

    def __init__(self, audio: str, reason: str) -> None:
        super().__init__(audio, reason)
        self.audio = audio
        self.reason = reason

    def __str__(self) -> str:
        return f"Cannot read audio {self.audio!r}: {self.reason}"


def read_audio(path: str | PathLike, seconds: float = SECONDS) -> np.ndarray:
    """The beginning of an audio file, its channels averaged, at 16 kHz.

    Reads what libsndfile reads: WAV, FLAC, Ogg, MP3 and others. Any sample rate is resampled with
    soxr's high quality (librosa's "soxr_hq").

    Args:
        path: of the file.
        seconds: how much to read; a shorter file gives all it has.

    Returns:
        (samples,) float32, 1.0 being full scale.

    Raises:
        UnreadableAudio: the file is missing, damaged, of another format, or holds samples that
            are not finite or far beyond full scale.
        ValueError: without the packages of the extra `audio`.
    """
    librosa, soundfile = audio_packages()
    path = Path(path)
    try:
        path.open("rb").close()  # says why it cannot be opened, which libsndfile does not
        with soundfile.SoundFile(path) as file:
            rate = file.samplerate
            channels = file.read(int(seconds * rate), dtype="float32", always_2d=True)
    except OSError as error:
        raise UnreadableAudio(str(path), f"{error.strerror or error}") from error
    except (soundfile.SoundFileError, TypeError) as error:  # TypeError for a name ending in .raw
        raise UnreadableAudio(
            str(path),
            "expected a whole WAV, FLAC, Ogg or MP3 file (convert others, for example with "
            f"ffmpeg). Received: {path.stat().st_size:,} bytes that cannot be decoded",
        ) from error
    samples = channels.mean(axis=1)  # (samples, channels) -> (samples,)
    peak = np.abs(samples).max(initial=0)
    if not peak <= LOUDEST:  # nor NaN
        raise UnreadableAudio(
            str(path), f"expected samples from -1 to 1. Received: a sample of size {peak:.3g}"
        )
    return librosa.resample(samples, orig_sr=rate, target_sr=SAMPLE_RATE)


def audio_packages() -> tuple[ModuleType, ModuleType]:
    """librosa and soundfile; ValueError without them."""
    try:
        import librosa
        import soundfile
    except ImportError:
        raise ValueError(
            "Expected the packages librosa and soundfile to read audio (pip install "
            "'effcap[audio]'). Received: none"
        ) from None
    return librosa, soundfile
