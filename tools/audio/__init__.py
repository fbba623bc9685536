"""Music into features: files, log-mel spectrograms, and the network that listens.

Names are imported when first used: reading audio needs neither Keras nor TensorFlow.
"""

# ruff: noqa: F401  the names are for type checkers
from __future__ import annotations

from typing import TYPE_CHECKING

from effcap.lazy import lazy_names

if TYPE_CHECKING:
    from effcap.tools.audio.features import AudioFeatures
    from effcap.tools.audio.reading import UnreadableAudio, read_audio
    from effcap.tools.audio.spectrogram import log_mel, split_windows
    from effcap.tools.audio.vgg import MSDVGG
    from effcap.tools.audio.vgg_weights import load_msd_vgg

_MODULES = {
    "MSDVGG": ".vgg",
    "AudioFeatures": ".features",
    "UnreadableAudio": ".reading",
    "load_msd_vgg": ".vgg_weights",
    "log_mel": ".spectrogram",
    "read_audio": ".reading",
    "split_windows": ".spectrogram",
}
__all__ = list(_MODULES)
__getattr__, __dir__ = lazy_names(__name__, _MODULES)
