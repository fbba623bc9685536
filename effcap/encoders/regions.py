"""The encoder of detected regions, as in VisualGPT."""

from __future__ import annotations

import keras
from keras import ops

from effcap.encoders.memory import Memory
from effcap.layers.feature_projection import FeatureProjection
from effcap.layers.transformer import PostNormBlock


class RegionEncoder(keras.layers.Layer):
    """features -> `FeatureProjection` -> post-norm transformer layers, whose outputs are all kept.

    Chen et al., "VisualGPT: Data-efficient Adaptation of Pretrained Language Models for Image
    Captioning", CVPR 2022, after Cornia et al., "Meshed-Memory Transformer", CVPR 2020.

    Args:
        width: width D of the memory.
        channels: width C of a region's features.
        layers: number of transformer layers.
        levels: how many layers' outputs are kept, the last ones; all of them by default.
        heads: heads in each layer.
        inner: width of the layers' MLPs.
        dropout: rate on the projected features and on what each part of a layer adds.

    Call arguments:
        inputs: `{"regions": (B, S, C)}`; rows of nothing but zeros are padding.

    Returns:
        a `Memory` of values (B, S, D) for each level, from the first layer to the last.

    Raises:
        ValueError: for more levels than layers, or a width that does not fit the heads.
    """

    input_keys = ("regions",)

    def __init__(
        self,
        width: int,
        channels: int = 2048,
        layers: int = 3,
        levels: int | None = None,
        heads: int = 12,
        inner: int = 2048,
        dropout: float = 0.1,
        name: str = "region_encoder",
        **kwargs,
    ):
        super().__init__(name=name, **kwargs)
        levels = layers if levels is None else levels
        if not 1 <= levels <= layers:
            raise ValueError(
                "Expected levels of at least 1, and no more than there are layers. "
                f"Received: levels={levels}, layers={layers}"
            )
        self.width, self.channels, self.levels = width, channels, levels
        self.heads, self.inner, self.dropout = heads, inner, dropout
        self.projection = FeatureProjection(width, dropout, name="projection")
        self.blocks = [
            PostNormBlock(width, heads, inner, dropout, name=f"block_{i}") for i in range(layers)
        ]

    @property
    def memory_shapes(self) -> list[tuple[None, None, int]]:
        """(None, None, D) for each level."""
        return [(None, None, self.width)] * self.levels

    def build(self, shape=None):
        self.projection.build((None, None, self.channels))
        for block in self.blocks:
            block.build((None, None, self.width))
        self.built = True

    def call(self, inputs, training=None):
        x, visible = self.projection(inputs["regions"], training=training)  # (B,S,D), (B,S)
        levels = []
        for block in self.blocks:
            x = block(x, ops.expand_dims(visible, 1), training=training)  # (B,S,D)
            levels.append(Memory(x, visible))
        return tuple(levels[-self.levels :])

    def get_config(self) -> dict:
        names = ("width", "channels", "levels", "heads", "inner", "dropout")
        return {"layers": len(self.blocks), **{name: getattr(self, name) for name in names}}
