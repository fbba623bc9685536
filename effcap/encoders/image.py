"""Encoder of photos: a backbone and transformer blocks without a causal mask."""

from __future__ import annotations

from typing import Any

import keras
from keras import ops

from effcap.backbones.backbone import Backbone
from effcap.encoders.base import PhotoEncoder
from effcap.encoders.memory import Memory
from effcap.layers.embedding import Embedding
from effcap.layers.lora import AdaptableDense
from effcap.layers.transformer import TransformerBlock


class ImageEncoder(PhotoEncoder):
    """Backbone, projection to D, position embedding, N bidirectional pre-norm blocks.

    Relative positions are not used, because convolutions already encode them.

    Args:
        backbone: a `Backbone`, or its arguments as a dict.
        hidden_dim: width D of the memory.
        num_layers: number N of transformer blocks. 0 returns the projected features.
            Default 2.
        num_heads: number of heads of each block. Default 8.
        dropout: rate on the projected features and on each sublayer's output. Default 0.1.
        attention_dropout: rate on the attention weights. Default 0.0.

    Call arguments:
        inputs: as in `PhotoEncoder`.

    Returns:
        A tuple of one `Memory` with values (B, S, D).
    """

    def __init__(
        self,
        backbone: Backbone | dict,
        hidden_dim: int,
        num_layers: int = 2,
        num_heads: int = 8,
        dropout: float = 0.1,
        attention_dropout: float = 0.0,
        name: str = "image_encoder",
        **kwargs: Any,
    ):
        super().__init__(backbone, name, **kwargs)
        self.hidden_dim, self.num_heads = hidden_dim, num_heads
        self.dropout, self.attention_dropout = dropout, attention_dropout
        positions = self.backbone.feature_shape[0]
        self.feature_norm = keras.layers.LayerNormalization(epsilon=1e-5, name="feature_norm")
        self.projection = AdaptableDense(hidden_dim, name="projection")
        self.position_embedding = Embedding(positions, hidden_dim, name="position_embedding")
        self.feature_dropout = keras.layers.Dropout(dropout, name="feature_dropout")
        self.blocks = [
            TransformerBlock(
                hidden_dim,
                num_heads,
                dropout=dropout,
                attention_dropout=attention_dropout,
                num_layers=num_layers,
                name=f"block_{i}",
            )
            for i in range(num_layers)
        ]
        self.norm = keras.layers.LayerNormalization(epsilon=1e-5, name="norm")

    @property
    def memory_shapes(self) -> list[tuple[None, int, int]]:
        """Shapes of the memories: one (None, S, D)."""
        return [(None, self.backbone.feature_shape[0], self.hidden_dim)]

    def build(self, shape: Any = None) -> None:
        positions, feature_dim = self.backbone.feature_shape
        self.warn_of_many_positions()
        super().build(shape)
        self.feature_norm.build((None, positions, feature_dim))
        self.projection.build((None, positions, feature_dim))
        self.position_embedding.build()
        for layer in (*self.blocks, self.norm):
            layer.build(self.memory_shapes[0])

    def call(self, inputs: dict, training: bool | None = None) -> tuple[Memory]:
        features = self.read_features(inputs, training)  # (B,S,C)
        x = self.projection(self.feature_norm(features))  # (B,S,D)
        x = x + ops.cast(self.position_embedding.embeddings, x.dtype)
        x = self.feature_dropout(x, training=training)
        for block in self.blocks:
            x, *_ = block(x, training=training)  # (B,S,D)
        return (Memory(self.norm(x)),)

    def get_config(self) -> dict:
        return {
            "backbone": self.backbone.get_config(),
            "hidden_dim": self.hidden_dim,
            "num_layers": len(self.blocks),
            "num_heads": self.num_heads,
            "dropout": self.dropout,
            "attention_dropout": self.attention_dropout,
        }
