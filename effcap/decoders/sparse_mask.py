"""A learned hard mask of the positions of a prefix."""

from __future__ import annotations

from typing import Any

import keras
from keras import ops

from effcap.decoders.mappers import mapper_dense


class SparseMask(keras.layers.Layer):
    """Selects the prefix positions that are attended to, as in OPG.

    With keys k and values v, both (P, P) linear maps of the prefix, and a learned query q, the
    score of each position is sigmoid(layer_norm((q k^T) v)). Positions whose score is not above
    the threshold are masked.

    Args:
        threshold: score that an attended position exceeds, from 0 up to but not including 1.
            Default 0.5.
        straight_through: pass gradients to the scores as if attention to a position were
            multiplied by its score; otherwise the mask is not trained, as in the original.
            Default false.

    Call arguments:
        prefix: (B, P, D).

    Returns:
        The mask, bool (B, P), and the scores, float32 (B, P).

    Raises:
        ValueError: the threshold is out of range.
    """

    def __init__(self, threshold: float = 0.5, straight_through: bool = False, **kwargs: Any):
        super().__init__(**kwargs)
        is_number = isinstance(threshold, int | float) and not isinstance(threshold, bool)
        if not is_number or not 0 <= threshold < 1:
            raise ValueError(
                "Expected decoder.fusion.sparse_mask.threshold from 0 up to but not including 1. "
                f"Received: threshold={threshold!r}"
            )
        self.threshold, self.straight_through = threshold, straight_through
        self.norm = keras.layers.LayerNormalization(epsilon=1e-5, dtype="float32", name="norm")

    def build(self, shape: Any) -> None:
        _, length, _ = shape
        self.key = mapper_dense(length, "key")
        self.value = mapper_dense(length, "value")
        self.query = self.add_weight(
            shape=(length,),
            initializer=keras.initializers.RandomNormal(stddev=1.0),
            name="query",
        )
        self.key.build(shape)
        self.value.build(shape)
        self.norm.build((None, length))
        self.trainable = self.straight_through
        self.built = True

    def call(self, prefix: Any) -> tuple[Any, Any]:
        keys, values = self.key(prefix), self.value(prefix)  # (B,P,P)
        query = ops.cast(self.query, keys.dtype)  # (P,)
        weights = ops.expand_dims(ops.sum(keys * query, axis=-1), 1)  # (B,1,P)
        mixed = ops.squeeze(ops.matmul(weights, values), 1)  # (B,1,P) -> (B,P)
        scores = ops.sigmoid(self.norm(ops.cast(mixed, "float32")))  # (B,P)
        return scores > self.threshold, scores
