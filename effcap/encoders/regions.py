"""Encoder of detected regions, as in VisualGPT."""

from __future__ import annotations

from typing import Any

import keras
from keras import ops

from effcap.encoders.memory import Memory
from effcap.layers.feature_projection import FeatureProjection
from effcap.layers.transformer import PostNormBlock


class RegionEncoder(keras.layers.Layer):
    """`FeatureProjection` and post-norm transformer layers, with a memory for each level.

    Source: Chen et al., "VisualGPT: Data-efficient Adaptation of Pretrained Language Models for
    Image Captioning", CVPR 2022, after Cornia et al., "Meshed-Memory Transformer", CVPR 2020.

    Args:
        hidden_dim: width D of the memories.
        feature_dim: width C of a region's features. Default 2048.
        num_layers: number of transformer layers. Default 3.
        num_levels: number of layers, counted from the last, whose outputs are memories. None takes
            all of them.
        num_heads: heads of each layer. Default 12.
        intermediate_dim: width of the MLPs' hidden layers. Default 2048.
        dropout: rate on the projected features and on each sublayer's output. Default 0.1.

    Call arguments:
        inputs: `{"regions": (B, S, C)}`; rows of zeros are padding.

    Returns:
        A tuple with one `Memory` of values (B, S, D) for each level, from the first layer on.

    Raises:
        ValueError: there are more levels than layers, or D does not split into the heads.
    """

    input_keys = ("regions",)

    def __init__(
        self,
        hidden_dim: int,
        feature_dim: int = 2048,
        num_layers: int = 3,
        num_levels: int | None = None,
        num_heads: int = 12,
        intermediate_dim: int = 2048,
        dropout: float = 0.1,
        name: str = "region_encoder",
        **kwargs: Any,
    ):
        super().__init__(name=name, **kwargs)
        num_levels = num_layers if num_levels is None else num_levels
        if not 1 <= num_levels <= num_layers:
            raise ValueError(
                "Expected num_levels from 1 to num_layers. "
                f"Received: num_levels={num_levels}, num_layers={num_layers}"
            )
        self.hidden_dim, self.feature_dim, self.num_levels = hidden_dim, feature_dim, num_levels
        self.num_heads, self.intermediate_dim, self.dropout = num_heads, intermediate_dim, dropout
        self.projection = FeatureProjection(hidden_dim, dropout, name="projection")
        self.blocks = [
            PostNormBlock(hidden_dim, num_heads, intermediate_dim, dropout, name=f"block_{i}")
            for i in range(num_layers)
        ]

    @property
    def memory_shapes(self) -> list[tuple[None, None, int]]:
        """Shapes of the memories: (None, None, D) for each level."""
        return [(None, None, self.hidden_dim)] * self.num_levels

    def build(self, shape: Any = None) -> None:
        self.projection.build((None, None, self.feature_dim))
        for block in self.blocks:
            block.build((None, None, self.hidden_dim))
        self.built = True

    def call(self, inputs: dict, training: bool | None = None) -> tuple[Memory, ...]:
        x, mask = self.projection(inputs["regions"], training=training)  # (B,S,D), (B,S)
        levels = []
        attention_mask = ops.expand_dims(mask, 1)  # (B,1,S)
        for block in self.blocks:
            x, *_ = block(x, attention_mask=attention_mask, training=training)  # (B,S,D)
            levels.append(Memory(x, mask))
        return tuple(levels[-self.num_levels :])

    def get_config(self) -> dict:
        names = (
            "hidden_dim",
            "feature_dim",
            "num_levels",
            "num_heads",
            "intermediate_dim",
            "dropout",
        )
        return {"num_layers": len(self.blocks), **{name: getattr(self, name) for name in names}}
