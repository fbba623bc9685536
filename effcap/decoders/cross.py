"""Fusion of memory by cross-attention in every block."""

from __future__ import annotations

from typing import Any

import keras

from effcap.layers.attention import CrossAttention


class CrossFusion(keras.layers.Layer):
    """Pre-norm residual cross-attention on one memory: h + cross(norm(h), memory).

    The output projection starts at zero, so a new captioner generates the same text as its
    language model.

    Args:
        hidden_dim: model width D.
        num_heads: number of heads.
        dropout: rate on the output. Default 0.0.
        attention_dropout: rate on the attention weights. Default 0.0.
        epsilon: epsilon of the layer norm. Default 1e-5.

    Call arguments:
        x: (R, T, D), R = B*K rows with the K rows of an image adjacent.
        memory_kv: result of `precompute_kv` on the encoder's memory, computed once per image.
        norm: the block's first layer norm, for fusions that share it.

    Returns:
        The output (R, T, D), and a tuple of attention weights (R, H, T, S), one for each memory.

    Raises:
        ValueError: the encoder gives several memories.
    """

    in_blocks = True

    def __init__(
        self,
        hidden_dim: int,
        num_heads: int,
        dropout: float = 0.0,
        attention_dropout: float = 0.0,
        epsilon: float = 1e-5,
        **kwargs: Any,
    ):
        super().__init__(**kwargs)
        self.norm = keras.layers.LayerNormalization(epsilon=epsilon, name="norm")
        self.attention = CrossAttention(hidden_dim, num_heads, attention_dropout, name="attention")
        self.dropout = keras.layers.Dropout(dropout, name="dropout")

    def build(self, shape: Any, memory_shapes: Any) -> None:
        check_single_memory(memory_shapes, "cross")
        self.norm.build(shape)
        self.attention.build(shape, memory_shapes[0])
        self.built = True

    def precompute_kv(self, memory: Any, norm: keras.layers.Layer) -> list[dict]:
        """Computes the keys and values, each (B, H, S, d), of the memory."""
        return [self.attention.precompute_kv(level.values, level.mask) for level in memory]

    def call(
        self, x: Any, memory_kv: list[dict], norm: Any, training: bool | None = None
    ) -> tuple[Any, tuple]:
        output, weights = self.attention(self.norm(x), memory_kv[0], training=training)  # (R,T,D)
        return x + self.dropout(output, training=training), (weights,)


def check_single_memory(memory_shapes: Any, kind: str) -> None:
    """Checks that the encoder gives one memory.

    Raises:
        ValueError: it gives several.
    """
    if len(memory_shapes) != 1:
        raise ValueError(
            f"fusion.kind={kind!r} takes an encoder with one memory, such as one with "
            "encoder.num_levels=1; use fusion.kind='meshed' for levels or 'modalities' for "
            f"modalities. Received: {len(memory_shapes)} memories"
        )
