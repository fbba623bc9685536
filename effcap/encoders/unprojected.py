"""Encoder of photos without blocks of its own: the backbone's features are the memory."""

from __future__ import annotations

from typing import Any

from keras import ops

from effcap.backbones.backbone import Backbone
from effcap.encoders.base import PhotoEncoder
from effcap.encoders.memory import Memory
from effcap.layers.attention import dense

POOLINGS = (None, "mean", "first")
NORM_EPSILON = 1e-12


class BackboneEncoder(PhotoEncoder):
    """The features of a backbone, as they are or projected to the width of a decoder.

    Args:
        backbone: a `Backbone`, or its arguments as a dict.
        pooling: pooling of the positions into one vector, "mean" or "first" (the class token of a
            vision transformer). None keeps all positions. Default None.
        normalize: divide each vector by its L2 norm, as ClipCap does with CLIP's vector for its
            transformer. Default False.
        projection_dim: width D of a projection of each vector, as in a model of ViT and GPT-2 of
            different widths. None for no projection. Default None.

    Call arguments:
        inputs: as in `PhotoEncoder`.

    Returns:
        A tuple of one `Memory` with values (B, S, C), or (B, S, D) with a projection; S is 1 with
        pooling.

    Raises:
        ValueError: there is no such pooling, or `projection_dim` is not positive.
    """

    def __init__(
        self,
        backbone: Backbone | dict,
        pooling: str | None = None,
        normalize: bool = False,
        projection_dim: int | None = None,
        name: str = "backbone_encoder",
        **kwargs: Any,
    ):
        super().__init__(backbone, name, **kwargs)
        if pooling not in POOLINGS:
            raise ValueError(
                f"Expected pooling out of {', '.join(map(repr, POOLINGS))}. "
                f"Received: pooling={pooling!r}"
            )
        if projection_dim is not None and projection_dim < 1:
            raise ValueError(
                "Expected a projection_dim of at least 1, or None for no projection. "
                f"Received: projection_dim={projection_dim!r}"
            )
        self.pooling, self.normalize, self.projection_dim = pooling, normalize, projection_dim
        self.projection = None if projection_dim is None else dense(projection_dim, "projection")

    @property
    def memory_shapes(self) -> list[tuple[None, int, int]]:
        """Shapes of the memories: one (None, S, C), or (None, S, D) with a projection."""
        positions, feature_dim = self.backbone.feature_shape
        return [(None, 1 if self.pooling else positions, self.projection_dim or feature_dim)]

    def build(self, shape: Any = None) -> None:
        if not self.pooling:
            self.warn_of_many_positions()
        if self.projection is not None:
            self.projection.build((None, *self.backbone.feature_shape))
        super().build(shape)

    def call(self, inputs: dict, training: bool | None = None) -> tuple[Memory]:
        x = self.read_features(inputs, training)  # (B,S,C)
        if self.pooling == "mean":
            x = ops.mean(x, axis=1, keepdims=True)  # (B,1,C)
        elif self.pooling == "first":
            x = x[:, :1]  # (B,1,C)
        if self.normalize:
            x = ops.normalize(x, axis=-1, epsilon=NORM_EPSILON)  # (B,S,C)
        if self.projection is not None:
            x = self.projection(x)  # (B,S,D)
        return (Memory(x),)

    def get_config(self) -> dict:
        return {
            "backbone": self.backbone.get_config(),
            "pooling": self.pooling,
            "normalize": self.normalize,
            "projection_dim": self.projection_dim,
        }
