"""Base class of encoders of photos."""

from __future__ import annotations

import warnings
from typing import Any

import keras
from keras import ops

from effcap.backbones.backbone import Backbone
from effcap.images import Fit, Resample

MANY_POSITIONS = 1024


class PhotoEncoder(keras.layers.Layer):
    """A backbone and what follows it.

    Args:
        backbone: a `Backbone`, or its arguments as a dict.

    Call arguments:
        inputs: `{"images": (B, h, w, 3)}`, pixels 0..255, or `{"features": (B, S, C)}`, the
            precomputed output of the backbone.
    """

    input_keys = ("images", "features")

    def __init__(self, backbone: Backbone | dict, name: str, **kwargs: Any):
        super().__init__(name=name, **kwargs)
        self.backbone = Backbone(**backbone) if isinstance(backbone, dict) else backbone

    @property
    def image_size(self) -> tuple[int, int]:
        """Height and width of the input images, in pixels."""
        return self.backbone.image_size

    @property
    def fit(self) -> Fit:
        """Fit of photos of another aspect ratio to `image_size`: "squash", "crop" or "pad"."""
        return self.backbone.fit

    @property
    def resample(self) -> Resample | None:
        """Filter that resizes photos; None for the default. See `effcap.images.load_photo`."""
        return self.backbone.resample

    def build(self, shape: Any = None) -> None:
        if not self.backbone.built:
            self.backbone.build((None, *self.image_size, 3))
        self.built = True

    def warn_of_many_positions(self) -> None:
        """Warns if the memory has so many positions that attention becomes slow."""
        positions = self.backbone.feature_shape[0]
        if positions > MANY_POSITIONS:
            warnings.warn(
                f"The backbone gives {positions} memory positions for images of "
                f"{self.image_size[0]}x{self.image_size[1]} pixels. More than {MANY_POSITIONS} "
                "make attention slow; choose a smaller image_size",
                stacklevel=3,
            )

    def features(self, images: Any, training: bool | None = None) -> Any:
        """Computes the backbone's features (B, S, C) of images (B, h, w, 3), pixels 0..255."""
        return self.backbone(images, training=training)

    def read_features(self, inputs: dict, training: bool | None = None) -> Any:
        """Computes features (B, S, C) of images, or returns those among the inputs."""
        if "features" in inputs:
            return ops.cast(inputs["features"], self.compute_dtype)  # (B,S,C)
        return self.features(inputs["images"], training=training)  # (B,S,C)
