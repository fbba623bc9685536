"""Reads audio files with soundfile and librosa (the extra `audio`)."""

from __future__ import annotations

from os import PathLike
from pathlib import Path
from types import ModuleType

import numpy as np

SAMPLE_RATE = 16_000  # Hz
DURATION = 30.0  # seconds
MAX_PEAK = 16  # times full scale; louder files use another unit


class UnreadableAudio(ValueError):
    """An audio file that is missing, damaged, too short, or not audio.

    Attributes:
        audio: path of the file.
        reason: why it cannot be used.
    """

    def __init__(self, audio: str, reason: str) -> None:
        super().__init__(audio, reason)
        self.audio = audio
        self.reason = reason

    def __str__(self) -> str:
        return f"Cannot read audio {self.audio!r}: {self.reason}"


def read_audio(path: str | PathLike, duration: float = DURATION) -> np.ndarray:
    """Reads the start of an audio file as mono at 16 kHz.

    Formats are those of libsndfile: WAV, FLAC, Ogg, MP3 and others. Channels are averaged. Other
    sample rates are resampled with soxr's high quality (librosa's "soxr_hq").

    Args:
        path: path of the file.
        duration: seconds to read; a shorter file is read whole (default: 30).

    Returns:
        (samples,) float32, 1.0 is full scale.

    Raises:
        UnreadableAudio: the file is missing, damaged or of another format, or it contains samples
            that are not finite or far beyond full scale.
        ImportError: librosa or soundfile is not installed.
    """
    librosa, soundfile = audio_packages()
    path = Path(path)
    try:
        path.open("rb").close()  # raises the reason, which libsndfile does not report
        with soundfile.SoundFile(path) as file:
            rate = file.samplerate
            channels = file.read(int(duration * rate), dtype="float32", always_2d=True)
    except OSError as error:
        raise UnreadableAudio(str(path), f"{error.strerror or error}") from error
    except (soundfile.SoundFileError, TypeError) as error:  # TypeError for a name ending in .raw
        raise UnreadableAudio(
            str(path),
            f"its {path.stat().st_size:,} bytes are not a complete WAV, FLAC, Ogg or MP3 file "
            "(convert other formats, for example with ffmpeg)",
        ) from error
    samples = channels.mean(axis=1)  # (samples, channels) -> (samples,)
    peak = np.abs(samples).max(initial=0)
    if not peak <= MAX_PEAK:  # also true for NaN
        raise UnreadableAudio(
            str(path), f"expected samples from -1 to 1. Received: a peak of {peak:.3g}"
        )
    return librosa.resample(samples, orig_sr=rate, target_sr=SAMPLE_RATE)


def audio_packages() -> tuple[ModuleType, ModuleType]:
    """Imports librosa and soundfile.

    Raises:
        ImportError: they are not installed; the message has the pip command.
    """
    try:
        import librosa
        import soundfile
    except ImportError as error:
        raise ImportError(
            "Reading audio requires librosa and soundfile: pip install 'effcap[audio]'"
        ) from error
    return librosa, soundfile
