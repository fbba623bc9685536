"""Fusion of memory at the input: a prefix of embeddings before the text."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import keras
from keras import ops

from effcap.decoders.base import Prefix
from effcap.decoders.cross import check_single_memory
from effcap.decoders.mapper_registry import create_mapper
from effcap.decoders.sparse_mask import SparseMask


class PrefixFusion(keras.layers.Layer):
    """A mapper of memory to a prefix of embeddings, and an optional mask of its positions.

    The prefix takes the decoder's first P positions. Every caption of an image attends to all of
    it that is not masked; its keys and values are computed once per image and shared by the
    image's rows. Without a start token, the last prefix embedding takes its place: it is the
    caption's first input, from which the first token is predicted.

    Args:
        hidden_dim: model width D.
        num_heads: not used: the prefix is attended to by the decoder's self-attention.
        dropout: rate on the prefix embeddings. Default 0.0.
        attention_dropout: not used, as `num_heads`.
        mapper: `{"kind": "mlp", ...}` as in `effcap.decoders.mapper_registry.MAPPERS`. None for a
            linear map of each memory position. Default None.
        sparse_mask: arguments of a `SparseMask`. None for no mask. Default None.
        start_token: whether a start token is fed between the prefix and the text. ClipCap feeds
            none. Default True.

    Call arguments:
        memory: tuple of one `Memory` with values (B, S, C).

    Returns:
        A `Prefix`.

    Raises:
        ValueError: the encoder gives several memories, the mapper does not fit the memory, or
            there is neither a start token nor a last prefix embedding that is never masked.
    """

    in_blocks = False

    def __init__(
        self,
        hidden_dim: int,
        num_heads: int | None = None,
        dropout: float = 0.0,
        attention_dropout: float = 0.0,
        mapper: Mapping[str, Any] | None = None,
        sparse_mask: Mapping[str, Any] | None = None,
        start_token: bool = True,
        **kwargs: Any,
    ):
        super().__init__(**kwargs)
        if not start_token and sparse_mask is not None:
            raise ValueError(
                "A mask may leave out the last prefix embedding, which takes the place of the "
                "start token: set decoder.fusion.start_token=true, or "
                "decoder.fusion.sparse_mask=null"
            )
        self.hidden_dim, self.start_token = hidden_dim, start_token
        self.mapper = create_mapper(hidden_dim, mapper or {"kind": "linear"})
        self.dropout = keras.layers.Dropout(dropout, name="dropout")
        self.sparse_mask = None
        if sparse_mask is not None:
            self.sparse_mask = SparseMask(**sparse_mask, name="sparse_mask")

    @property
    def prefix_length(self) -> int:
        """Number P of prefix positions."""
        return self.mapper.prefix_length

    def build(self, memory_shapes: Any) -> None:
        check_single_memory(memory_shapes, "prefix")
        self.mapper.build(memory_shapes[0])
        if self.sparse_mask is not None:
            self.sparse_mask.build((None, self.prefix_length, self.hidden_dim))
        self.built = True

    def call(self, memory: Any, training: bool | None = None) -> Prefix:
        prefix, mask = self.mapper(memory[0].values, memory[0].mask)  # (B,P,D), (B,P)
        gate = None
        if self.sparse_mask is not None:
            selected, scores = self.sparse_mask(prefix)  # (B,P), (B,P)
            mask = selected if mask is None else ops.logical_and(mask, selected)
            if training and self.sparse_mask.straight_through:
                hard = ops.cast(mask, scores.dtype)  # (B,P)
                gate = hard + scores - ops.stop_gradient(scores)  # (B,P)
        return Prefix(self.dropout(prefix, training=training), mask, gate)
