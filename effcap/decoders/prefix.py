"""Fusion of memory at the input: a prefix of embeddings before the text."""

from __future__ import annotations

from typing import Any

import keras

from effcap.decoders.cross import check_single_memory
from effcap.layers.attention import dense


class PrefixFusion(keras.layers.Layer):
    """A linear map of memory to a prefix of embeddings: one for each memory position.

    The prefix takes the decoder's first P positions. Every caption of an image attends to all of
    it; its keys and values are computed once per image and shared by the image's rows.

    Args:
        hidden_dim: model width D.
        num_heads: not used: the prefix is attended to by the decoder's self-attention.
        dropout: rate on the prefix embeddings. Default 0.0.
        attention_dropout: not used, as `num_heads`.

    Call arguments:
        memory: tuple of one `Memory` with values (B, P, D').

    Returns:
        Prefix embeddings (B, P, D), and the mask (B, P) or None.

    Raises:
        ValueError: the encoder gives several memories, or memories of varying length.
    """

    in_blocks = False

    def __init__(
        self,
        hidden_dim: int,
        num_heads: int | None = None,
        dropout: float = 0.0,
        attention_dropout: float = 0.0,
        **kwargs: Any,
    ):
        super().__init__(**kwargs)
        self.projection = dense(hidden_dim, "projection")
        self.dropout = keras.layers.Dropout(dropout, name="dropout")

    def build(self, memory_shapes: Any) -> None:
        check_single_memory(memory_shapes, "prefix")
        (_, length, _), *_ = memory_shapes
        if length is None:
            raise ValueError(
                "fusion.kind='prefix' takes an encoder whose memory has a fixed length, such as "
                "encoder.kind='image'. Received: memory of varying length"
            )
        self.prefix_length = length
        self.projection.build(memory_shapes[0])
        self.built = True

    def call(self, memory: Any, training: bool | None = None) -> tuple[Any, Any]:
        prefix = self.projection(memory[0].values)  # (B,P,D)
        return self.dropout(prefix, training=training), memory[0].mask
