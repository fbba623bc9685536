"""From a photo to memory: what the decoder looks at while it writes."""

from __future__ import annotations

import warnings

import keras
from keras import ops

from effcap.backbones.backbone import Backbone
from effcap.encoders.memory import Memory
from effcap.encoders.modalities import BranchEncoder
from effcap.encoders.regions import RegionEncoder
from effcap.images import Fit
from effcap.layers.attention import INITIALIZER_STDDEV
from effcap.layers.transformer import TransformerBlock

MANY_POSITIONS = 1024


class ImageEncoder(keras.layers.Layer):
    """backbone -> project to D + position -> N bidirectional pre-norm blocks -> memory.

    No relative positions: convolution already carries them.

    Args:
        backbone: a `Backbone`, or its arguments as a dict.
        width: width D of the memory.
        blocks: number N of transformer blocks; 0 leaves the projected features as they are.
        heads: heads in each block.
        dropout: rate on the projected features and on what each part of a block adds.
        attention_dropout: rate on the attention weights.

    Call arguments:
        inputs: `{"images": (B, h, w, 3)}`, pixels 0..255; or `{"features": (B, S, C)}`, what the
            backbone gives for them, computed earlier.

    Returns:
        one `Memory` of values (B, S, D).
    """

    input_keys = ("images", "features")

    def __init__(
        self,
        backbone: Backbone | dict,
        width: int,
        blocks: int = 2,
        heads: int = 8,
        dropout: float = 0.1,
        attention_dropout: float = 0.0,
        name: str = "image_encoder",
        **kwargs,
    ):
        super().__init__(name=name, **kwargs)
        self.backbone = Backbone(**backbone) if isinstance(backbone, dict) else backbone
        self.width, self.heads = width, heads
        self.dropout, self.attention_dropout = dropout, attention_dropout
        self.project = keras.layers.Dense(width, name="project")
        self.feature_norm = keras.layers.LayerNormalization(epsilon=1e-5, name="feature_norm")
        self.feature_dropout = keras.layers.Dropout(dropout, name="feature_dropout")
        self.blocks = [
            TransformerBlock(
                width,
                heads,
                dropout=dropout,
                attention_dropout=attention_dropout,
                depth=blocks,
                name=f"block_{i}",
            )
            for i in range(blocks)
        ]
        self.norm = keras.layers.LayerNormalization(epsilon=1e-5, name="norm")

    @property
    def image_size(self) -> tuple[int, int]:
        """Height and width in pixels of the images it takes."""
        return self.backbone.image_size

    @property
    def fit(self) -> Fit:
        """How photos of another shape are brought to that size."""
        return self.backbone.fit

    @property
    def memory_shapes(self) -> list[tuple[None, int, int]]:
        """(None, S, D) of the one memory."""
        return [(None, self.backbone.feature_shape[0], self.width)]

    def build(self, shape=None):
        positions, channels = self.backbone.feature_shape
        if positions > MANY_POSITIONS:
            warnings.warn(
                f"The backbone gives {positions} memory positions for images of "
                f"{self.image_size[0]}x{self.image_size[1]} pixels; more than {MANY_POSITIONS} "
                "make attention slow. A smaller image_size gives fewer.",
                stacklevel=2,
            )
        if not self.backbone.built:
            self.backbone.build((None, *self.image_size, 3))
        self.feature_norm.build((None, positions, channels))
        self.project.build((None, positions, channels))
        self.position_embedding = self.add_weight(
            shape=(positions, self.width),
            initializer=keras.initializers.RandomNormal(stddev=INITIALIZER_STDDEV),
            name="position_embedding",
        )
        for part in (*self.blocks, self.norm):
            part.build(self.memory_shapes[0])
        self.built = True

    def features(self, images, training=None):
        """The backbone's features (B, S, C) of images (B, h, w, 3), pixels 0..255."""
        return self.backbone(images, training=training)

    def call(self, inputs, training=None):
        if "features" in inputs:
            features = ops.cast(inputs["features"], self.compute_dtype)  # (B,S,C)
        else:
            features = self.features(inputs["images"], training=training)  # (B,S,C)
        x = self.project(self.feature_norm(features))  # (B,S,D)
        x = x + ops.cast(self.position_embedding, x.dtype)
        x = self.feature_dropout(x, training=training)
        for block in self.blocks:
            x, *_ = block(x, training=training)
        return (Memory(self.norm(x)),)

    def get_config(self) -> dict:
        return {
            "backbone": self.backbone.get_config(),
            "width": self.width,
            "blocks": len(self.blocks),
            "heads": self.heads,
            "dropout": self.dropout,
            "attention_dropout": self.attention_dropout,
        }


ENCODERS: dict[str, type[keras.layers.Layer]] = {
    "image": ImageEncoder,
    "regions": RegionEncoder,
    "branches": BranchEncoder,
}
