"""Vocabulary tokens that are nearest to the embeddings of a prefix."""

from __future__ import annotations

from typing import Any

import numpy as np
from keras import ops

from effcap.decoders.base import Prefix

MASKED = -1


def nearest_tokens(prefix: Prefix, table: Any) -> np.ndarray:
    """Returns the token of highest cosine similarity to each prefix embedding, as in ClipCap.

    Args:
        prefix: embeddings (B, P, D).
        table: token embeddings (V, D).

    Returns:
        Tokens (B, P), and `MASKED` at masked positions.
    """
    table = ops.normalize(ops.cast(table, "float32"), axis=-1)  # (V,D)
    values = ops.cast(prefix.values, "float32")  # (B,P,D), whose norms do not change the order
    similarities = ops.matmul(values, ops.transpose(table))  # (B,P,V)
    tokens = ops.convert_to_numpy(ops.argmax(similarities, axis=-1))  # (B,P)
    if prefix.mask is None:
        return tokens
    return np.where(ops.convert_to_numpy(prefix.mask), tokens, MASKED)
