"""Audio features of tracks: audio files, log-mel spectrograms, and the network MSD_vgg.

Names are imported when first used: reading audio needs neither Keras nor TensorFlow.
"""

# ruff: noqa: F401  the names are for type checkers
from __future__ import annotations

from typing import TYPE_CHECKING

from effcap.utils.lazy import lazy_names

if TYPE_CHECKING:
    from effcap.trainers.data.audio.audio_files import UnreadableAudio, read_audio
    from effcap.trainers.data.audio.msd_vgg import MSDVGG
    from effcap.trainers.data.audio.msd_vgg_weights import load_msd_vgg
    from effcap.trainers.data.audio.spectrogram import log_mel, split_windows
    from effcap.trainers.data.audio.track_features import AudioFeatures

_MODULES = {
    "MSDVGG": ".msd_vgg",
    "AudioFeatures": ".track_features",
    "UnreadableAudio": ".audio_files",
    "load_msd_vgg": ".msd_vgg_weights",
    "log_mel": ".spectrogram",
    "read_audio": ".audio_files",
    "split_windows": ".spectrogram",
}
__all__ = list(_MODULES)
__getattr__, __dir__ = lazy_names(__name__, _MODULES)
