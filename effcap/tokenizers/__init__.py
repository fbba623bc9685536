"""Byte-level BPE and WordPiece tokenizers.

May use `effcap.utils`; imports neither Keras nor TensorFlow.
"""

from __future__ import annotations

from effcap.tokenizers.tokenizer import Tokenizer

__all__ = ["Tokenizer"]
