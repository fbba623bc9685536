"""What stands around the model: tokenizer, weight import, pages, command line.

Names are imported when first used: the tokenizer alone needs neither Keras nor TensorFlow.
"""

# ruff: noqa: F401  the names are for type checkers
from __future__ import annotations

from typing import TYPE_CHECKING

from effcap.utils.lazy import lazy_names

if TYPE_CHECKING:
    from effcap.tools.captioning.shards import caption_shards
    from effcap.weights.download import download_gpt2
    from effcap.weights.gpt2.architecture import gpt2_hparams
    from effcap.weights.gpt2.loader import load_gpt2

_MODULES = {
    "caption_shards": ".captioning.shards",
    "download_gpt2": "effcap.weights.download",
    "gpt2_hparams": "effcap.weights.gpt2.architecture",
    "load_gpt2": "effcap.weights.gpt2.loader",
}
__all__ = list(_MODULES)
__getattr__, __dir__ = lazy_names(__name__, _MODULES)
