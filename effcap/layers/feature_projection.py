"""Projection of precomputed features, padded with zeros to a common number per row."""

from __future__ import annotations

from typing import Any

import keras
from keras import ops

from effcap.layers.lora import AdaptableDense
from effcap.layers.transformer import gelu_tanh


def real_rows(features: Any) -> Any:
    """Computes a mask (B, S) of features (B, S, C): false at padding, which is all zero."""
    return ops.any(ops.not_equal(features, 0), axis=-1)  # (B,S)


class FeatureProjection(keras.layers.Layer):
    """GELU(x W + b), dropout, layer norm: the input stage of VisualGPT and PlayNTell.

    GELU is the tanh form, as in GPT-2.

    Args:
        hidden_dim: width D of the output.
        dropout: rate on the projected features. Default 0.1.

    Call arguments:
        features: (B, S, C); rows of zeros are padding.

    Returns:
        Projected features (B, S, D), and the mask (B, S), false at padding.
    """

    def __init__(self, hidden_dim: int, dropout: float = 0.1, **kwargs: Any):
        super().__init__(**kwargs)
        self.dense = AdaptableDense(hidden_dim, name="dense")
        self.dropout = keras.layers.Dropout(dropout, name="dropout")
        self.norm = keras.layers.LayerNormalization(epsilon=1e-5, name="norm")
        self.hidden_dim = hidden_dim

    def build(self, shape: Any) -> None:
        self.dense.build(shape)
        self.norm.build((None, None, self.hidden_dim))
        self.built = True

    def call(self, features: Any, training: bool | None = None) -> tuple[Any, Any]:
        mask = real_rows(features)  # (B,S)
        x = ops.cast(features, self.compute_dtype)
        x = gelu_tanh(self.dense(x))  # (B,S,D)
        return self.norm(self.dropout(x, training=training)), mask
