"""Features of unequal number, as a file holds them, into memory."""

from __future__ import annotations

import keras
from keras import ops

from effcap.encoders.memory import Memory, real_rows
from effcap.layers.transformer import gelu_tanh


class FeatureProjection(keras.layers.Layer):
    """GELU(x W + b) -> dropout -> layer norm, as VisualGPT and PlayNTell begin; GELU as in GPT-2.

    Args:
        width: width D of the memory.
        dropout: rate on the projected features.

    Call arguments:
        features: (B, S, C); rows of nothing but zeros are padding.

    Returns:
        `Memory` of values (B, S, D), whose padding is not visible.
    """

    def __init__(self, width: int, dropout: float = 0.1, **kwargs):
        super().__init__(**kwargs)
        self.project = keras.layers.Dense(width, name="project")
        self.dropout = keras.layers.Dropout(dropout, name="dropout")
        self.norm = keras.layers.LayerNormalization(epsilon=1e-5, name="norm")
        self.width = width

    def build(self, shape):
        self.project.build(shape)
        self.norm.build((None, None, self.width))
        self.built = True

    def call(self, features, training=None):
        visible = real_rows(features)  # (B,S)
        x = ops.cast(features, self.compute_dtype)
        x = gelu_tanh(self.project(x))  # (B,S,D)
        return Memory(self.norm(self.dropout(x, training=training)), visible)
