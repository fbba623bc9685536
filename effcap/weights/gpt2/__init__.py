"""GPT-2's published weights, of OpenAI or Hugging Face.

Names are imported when first used: reading sizes needs neither Keras nor TensorFlow.
"""

# ruff: noqa: F401  the names are for type checkers
from __future__ import annotations

from typing import TYPE_CHECKING

from effcap.utils.lazy import lazy_names

if TYPE_CHECKING:
    from effcap.weights.gpt2.loader import load_gpt2
    from effcap.weights.gpt2.sizes import gpt2_hparams

_MODULES = {
    "gpt2_hparams": ".sizes",
    "load_gpt2": ".loader",
}
__all__ = list(_MODULES)
__getattr__, __dir__ = lazy_names(__name__, _MODULES)
