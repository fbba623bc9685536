"""What stands around the model: tokenizer, weight import, pages, command line.

Names are imported when first used: the tokenizer alone needs neither Keras nor TensorFlow.
"""

# ruff: noqa: F401  the names are for type checkers
from __future__ import annotations

from typing import TYPE_CHECKING

from effcap.lazy import lazy_names

if TYPE_CHECKING:
    from effcap.tools.download import download_gpt2
    from effcap.tools.gpt2_config import gpt2_hparams
    from effcap.tools.gpt2_weights import load_gpt2
    from effcap.tools.shard_captions import caption_shards

_MODULES = {
    "caption_shards": ".shard_captions",
    "download_gpt2": ".download",
    "gpt2_hparams": ".gpt2_config",
    "load_gpt2": ".gpt2_weights",
}
__all__ = list(_MODULES)
__getattr__, __dir__ = lazy_names(__name__, _MODULES)
