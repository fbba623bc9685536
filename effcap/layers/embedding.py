"""Embedding table."""

from __future__ import annotations

from typing import Any

import keras
from keras import ops

from effcap.layers.attention import INITIALIZER_STDDEV


class Embedding(keras.layers.Layer):
    """A table of N learned vectors, initialized as in GPT-2.

    Args:
        num_embeddings: number N of vectors.
        hidden_dim: width D of a vector.
        stddev: standard deviation of the initial vectors. Default 0.02.

    Call arguments:
        ids: integers of any shape, each from 0 to N - 1.

    Returns:
        Vectors (..., D) in the dtype of the table.
    """

    def __init__(
        self,
        num_embeddings: int,
        hidden_dim: int,
        stddev: float = INITIALIZER_STDDEV,
        **kwargs: Any,
    ):
        super().__init__(**kwargs)
        self.num_embeddings, self.hidden_dim, self.stddev = num_embeddings, hidden_dim, stddev

    def build(self, shape: Any = None) -> None:
        self.embeddings = self.add_weight(
            shape=(self.num_embeddings, self.hidden_dim),
            initializer=keras.initializers.RandomNormal(stddev=self.stddev),
            name="embeddings",
        )
        self.built = True

    def call(self, ids: Any) -> Any:
        # Without this reshape, TensorFlow's gradient is sparse, with one entry per id. Adam then
        # squares the entries of a repeated id before it adds them up, and takes too large a step.
        table = ops.reshape(self.embeddings, (self.num_embeddings, self.hidden_dim))  # (N,D)
        # On several TensorFlow devices, Keras builds a model on the mean of their inputs, a float.
        return ops.take(table, ops.cast(ids, "int32"), axis=0)  # (...,D)
