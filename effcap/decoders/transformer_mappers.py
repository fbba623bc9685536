"""Transformer mappers of memory to a prefix: learned constants that attend to the memory."""

from __future__ import annotations

from typing import Any

import keras
from keras import ops

from effcap.decoders.mappers import Mapper, check_positive, check_single_vector, mapper_dense
from effcap.layers.attention import attend, check_num_heads, split_heads
from effcap.layers.embedding import Embedding

MLP_RATIO = 2


class MapperBlock(keras.layers.Layer):
    """A pre-norm block: self-attention without biases of q, k and v, and an MLP with ReLU.

    Args:
        hidden_dim: model width D.
        num_heads: number of heads H.

    Call arguments:
        x: (B, S, D).
        attention_mask: bool (B, 1, 1, S), false at padding. None where nothing is padding.

    Returns:
        (B, S, D).
    """

    def __init__(self, hidden_dim: int, num_heads: int, **kwargs: Any):
        super().__init__(**kwargs)
        check_num_heads(hidden_dim, num_heads)
        self.hidden_dim, self.num_heads = hidden_dim, num_heads
        self.norm1 = keras.layers.LayerNormalization(epsilon=1e-5, name="norm1")
        self.query = mapper_dense(hidden_dim, "query", use_bias=False)
        self.key_value = mapper_dense(2 * hidden_dim, "key_value", use_bias=False)
        self.c_proj = mapper_dense(hidden_dim, "c_proj")
        self.norm2 = keras.layers.LayerNormalization(epsilon=1e-5, name="norm2")
        self.fc1 = mapper_dense(MLP_RATIO * hidden_dim, "fc1")
        self.fc2 = mapper_dense(hidden_dim, "fc2")

    def build(self, shape: Any) -> None:
        for layer in (self.norm1, self.query, self.key_value, self.c_proj, self.norm2, self.fc1):
            layer.build(shape)
        self.fc2.build((*shape[:-1], MLP_RATIO * self.hidden_dim))
        self.built = True

    def call(self, x: Any, attention_mask: Any = None) -> Any:
        normed = self.norm1(x)  # (B,S,D)
        (queries,) = split_heads(self.query(normed), 1, self.num_heads)  # (B,H,S,d)
        keys, values = split_heads(self.key_value(normed), 2, self.num_heads)  # 2 x (B,H,S,d)
        mixed, _ = attend(queries, keys, values, attention_mask)  # (B,S,D)
        x = x + self.c_proj(mixed)  # (B,S,D)
        hidden = ops.relu(self.fc1(self.norm2(x)))  # (B,S,2D)
        return x + self.fc2(hidden)  # (B,S,D)


class TransformerMapper(Mapper):
    """A transformer over the projected memory and P learned constants, as in OPG.

    Its outputs at the constants are the prefix. As in the original's published outputs, no layer
    norm follows the last block.

    Args:
        hidden_dim: model width D.
        prefix_length: number P of prefix positions. Default 10.
        num_layers: number of blocks. Default 8.
        num_heads: number of heads of each block. Default 8.
    """

    def __init__(
        self,
        hidden_dim: int,
        prefix_length: int = 10,
        num_layers: int = 8,
        num_heads: int = 8,
        **kwargs: Any,
    ):
        super().__init__(**kwargs)
        for name, value in (("prefix_length", prefix_length), ("num_layers", num_layers)):
            check_positive(name, value)
        self.hidden_dim, self.prefix_length = hidden_dim, prefix_length
        self.linear = self._make_projection()
        self.constants = Embedding(prefix_length, hidden_dim, stddev=1.0, name="constants")
        self.blocks = [
            MapperBlock(hidden_dim, num_heads, name=f"block_{i}") for i in range(num_layers)
        ]

    def _make_projection(self) -> keras.layers.Layer:
        return mapper_dense(self.hidden_dim, "linear")

    def build(self, shape: Any) -> None:
        self.linear.build(shape)
        self.constants.build()
        for block in self.blocks:
            block.build((None, None, self.hidden_dim))
        self.built = True

    def project(self, x: Any) -> Any:
        """Computes what the constants are appended to, (B, S, D), from memory (B, S, C)."""
        return self.linear(x)

    def call(self, x: Any, memory_mask: Any = None) -> tuple[Any, Any]:
        x = self.project(x)  # (B,S,D)
        constants = ops.cast(self.constants.embeddings, x.dtype)  # (P,D)
        images, length = ops.shape(x)[0], ops.shape(x)[1]
        constants = ops.broadcast_to(
            ops.expand_dims(constants, 0), (images, self.prefix_length, self.hidden_dim)
        )  # (B,P,D)
        x = ops.concatenate([x, constants], axis=1)  # (B,S+P,D)
        attention_mask = None
        if memory_mask is not None:
            is_constant = ops.ones((images, self.prefix_length), "bool")  # (B,P)
            attention_mask = ops.concatenate([memory_mask, is_constant], axis=1)  # (B,S+P)
            attention_mask = ops.expand_dims(attention_mask, (1, 2))  # (B,1,1,S+P)
        for block in self.blocks:
            x = block(x, attention_mask=attention_mask)  # (B,S+P,D)
        return x[:, length:], None  # (B,P,D)


class ClipCapTransformerMapper(TransformerMapper):
    """ClipCap's transformer over one vector, which is projected to several positions.

    Source: Mokady et al., "ClipCap: CLIP Prefix for Image Captioning", 2021.

    Args:
        hidden_dim: model width D.
        prefix_length: number P of prefix positions. Default 10.
        clip_length: number of positions that the vector is projected to. Default 10.
        num_layers: number of blocks. Default 8.
        num_heads: number of heads of each block. Default 8.
    """

    def __init__(
        self,
        hidden_dim: int,
        prefix_length: int = 10,
        clip_length: int = 10,
        num_layers: int = 8,
        num_heads: int = 8,
        **kwargs: Any,
    ):
        check_positive("clip_length", clip_length)
        self._clip_length = clip_length
        super().__init__(hidden_dim, prefix_length, num_layers, num_heads, **kwargs)

    def _make_projection(self) -> keras.layers.Layer:
        return mapper_dense(self._clip_length * self.hidden_dim, "linear")

    def build(self, shape: Any) -> None:
        check_single_vector(shape)
        super().build((None, shape[-1]))

    def project(self, x: Any) -> Any:
        x = self.linear(x[:, 0])  # (B,clip_length*D)
        return ops.reshape(x, (-1, self._clip_length, self.hidden_dim))  # (B,clip_length,D)

    def call(self, x: Any, memory_mask: Any = None) -> tuple[Any, Any]:
        return super().call(x)
