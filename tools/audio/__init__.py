"""Music into features: files, log-mel spectrograms, and the network that listens.

Names are imported when first used: reading audio needs neither Keras nor TensorFlow.
"""

# ruff: noqa: F401  the names are for type checkers
from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from effcap.tools.audio.features import AudioFeatures
    from effcap.tools.audio.reading import UnreadableAudio, read_audio
    from effcap.tools.audio.spectrogram import log_mel, split_windows
    from effcap.tools.audio.vgg import MSDVGG
    from effcap.tools.audio.vgg_weights import load_msd_vgg

_MODULES = {
    "MSDVGG": "vgg",
    "AudioFeatures": "features",
    "UnreadableAudio": "reading",
    "load_msd_vgg": "vgg_weights",
    "log_mel": "spectrogram",
    "read_audio": "reading",
    "split_windows": "spectrogram",
}
__all__ = list(_MODULES)


def __getattr__(name: str) -> Any:
    if name not in _MODULES:
        raise AttributeError(f"module 'effcap.tools.audio' has no attribute {name!r}")
    return getattr(importlib.import_module(f"effcap.tools.audio.{_MODULES[name]}"), name)


def __dir__() -> list[str]:
    return sorted(__all__)
