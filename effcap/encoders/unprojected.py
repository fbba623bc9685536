"""Encoder of photos without weights of its own: the backbone's features are the memory."""

from __future__ import annotations

from typing import Any

from keras import ops

from effcap.backbones.backbone import Backbone
from effcap.encoders.base import PhotoEncoder
from effcap.encoders.memory import Memory

POOLINGS = (None, "mean", "first")
NORM_EPSILON = 1e-12


class BackboneEncoder(PhotoEncoder):
    """The features of a backbone as they are, for a fusion that maps them to a prefix.

    Args:
        backbone: a `Backbone`, or its arguments as a dict.
        pooling: pooling of the positions into one vector, "mean" or "first" (the class token of a
            vision transformer). None keeps all positions. Default None.
        normalize: divide each vector by its L2 norm, as ClipCap does with CLIP's vector for its
            transformer. Default False.

    Call arguments:
        inputs: as in `PhotoEncoder`.

    Returns:
        A tuple of one `Memory` with values (B, S, C); S is 1 with pooling.

    Raises:
        ValueError: there is no such pooling.
    """

    def __init__(
        self,
        backbone: Backbone | dict,
        pooling: str | None = None,
        normalize: bool = False,
        name: str = "backbone_encoder",
        **kwargs: Any,
    ):
        super().__init__(backbone, name, **kwargs)
        if pooling not in POOLINGS:
            raise ValueError(
                f"Expected pooling out of {', '.join(map(repr, POOLINGS))}. "
                f"Received: pooling={pooling!r}"
            )
        self.pooling, self.normalize = pooling, normalize

    @property
    def memory_shapes(self) -> list[tuple[None, int, int]]:
        """Shapes of the memories: one (None, S, C)."""
        positions, feature_dim = self.backbone.feature_shape
        return [(None, 1 if self.pooling else positions, feature_dim)]

    def build(self, shape: Any = None) -> None:
        if not self.pooling:
            self.warn_of_many_positions()
        super().build(shape)

    def call(self, inputs: dict, training: bool | None = None) -> tuple[Memory]:
        x = self.read_features(inputs, training)  # (B,S,C)
        if self.pooling == "mean":
            x = ops.mean(x, axis=1, keepdims=True)  # (B,1,C)
        elif self.pooling == "first":
            x = x[:, :1]  # (B,1,C)
        if self.normalize:
            x = ops.normalize(x, axis=-1, epsilon=NORM_EPSILON)  # (B,S,C)
        return (Memory(x),)

    def get_config(self) -> dict:
        return {
            "backbone": self.backbone.get_config(),
            "pooling": self.pooling,
            "normalize": self.normalize,
        }
