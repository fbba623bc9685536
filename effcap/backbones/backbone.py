"""The part that sees: any EfficientNet, or any other Keras model, behind one layer."""

from __future__ import annotations

import copy
import re
from collections.abc import Sequence
from typing import get_args

import keras
from keras import ops

from effcap.backbones.registry import NETWORKS, Preprocessing
from effcap.images import Fit

SMALLEST_SIDE = 32
# One pattern finds the blocks of EfficientNet, -V2, -Lite, MobileNet, ConvNeXt and ResNet by layer
# name: all of the name up to the block's number. Downsampling between blocks is no block.
BLOCK_NAME = re.compile(
    r"(.*?(?:stage_\d+_block_\d+|(?:expanded_conv|(?<!downsampling_)block)_?\d*[a-z]?))(?=_|$)"
)


class Backbone(keras.layers.Layer):
    """A vision network with its own preprocessing, from pixels 0..255 to features (B, S, C).

    Args:
        network: a name out of `effcap.backbones.registry.NETWORKS` ("efficientnet_b0" ... "efficientnet_b7",
            "efficientnet_v2_b0" ... "efficientnet_v2_l", "efficientnet_lite0" ... "lite2"), or a
            Keras model from images to a feature map (B, h, w, C) or a sequence (B, S, C).
        image_size: height and width in pixels; None for the network's own.
        trainable_blocks: 0 freezes the network, batch-norm statistics too; n trains its last n
            blocks and what follows them; "all" trains everything.
        scale, offset: a model is given pixels * scale + offset, each a number or one number per
            channel. Only for a model; a named network knows its own.
        fit: how photos of another shape are brought to `image_size`, in training and in use:
            "squash", "crop" or "pad" (see `effcap.load_photo`).

    Raises:
        ValueError: for an unknown network or fit, an image size that does not fit, or more
            trainable blocks than there are.
    """

    def __init__(
        self,
        network: str | keras.Model | dict,
        image_size: Sequence[int] | None = None,
        trainable_blocks: int | str = 0,
        scale: float | Sequence[float] = 1.0,
        offset: float | Sequence[float] = 0.0,
        fit: Fit = "squash",
        name: str = "backbone",
        **kwargs,
    ):
        super().__init__(name=name, **kwargs)
        if fit not in get_args(Fit):
            fits = ", ".join(get_args(Fit))
            raise ValueError(f"Expected fit out of {fits}. Received: fit={fit!r}")
        self.fit = fit
        if isinstance(network, str):
            if network not in NETWORKS:
                raise ValueError(
                    f"Expected a network out of {', '.join(NETWORKS)}, or a Keras model. "
                    f"Received: network={network!r}"
                )
            entry = NETWORKS[network]
            self.image_size = check_image_size(image_size or entry.image_size)
            self.preprocessing = entry.preprocessing
            self.net = entry.build((*self.image_size, 3))
        else:
            self.net = (
                keras.saving.deserialize_keras_object(copy.deepcopy(network))  # empties it
                if isinstance(network, dict)
                else network
            )
            self.image_size = model_image_size(self.net, image_size)
            self.preprocessing = Preprocessing(scale, offset)
        self.network = network
        self.feature_shape = feature_shape(self.net, self.image_size)
        self.trainable_blocks = trainable_blocks
        self._freeze()

    @property
    def blocks(self) -> list[str]:
        """Names of the network's blocks, first to last."""
        found = (BLOCK_NAME.match(layer.name) for layer in self.net.layers)
        return list(dict.fromkeys(match.group(1) for match in found if match))

    def _freeze(self) -> None:
        count = self.trainable_blocks
        if count == "all":
            self.net.trainable = True
            return
        blocks = self.blocks
        if not isinstance(count, int) or isinstance(count, bool) or not 0 <= count <= len(blocks):
            raise ValueError(
                f"Expected trainable_blocks from 0 to {len(blocks)} (the blocks found in "
                f"{self.net.name}), or 'all'. Received: trainable_blocks={count!r}"
            )
        self.net.trainable = count > 0
        if count:
            for layer in self.net.layers:
                match = BLOCK_NAME.match(layer.name)
                if match and match.group(1) == blocks[-count]:
                    break
                layer.trainable = False

    def build(self, shape=None):
        self.built = True

    def call(self, images, training=None):
        """Features (B, S, C) of images (B, h, w, 3), pixels 0..255."""
        if not self.net.trainable:
            training = False  # frozen means no stochastic depth either
        x = self.preprocessing(ops.cast(images, self.compute_dtype))
        x = self.net(x, training=training)  # (B,h,w,C) or (B,S,C)
        return ops.reshape(x, (-1, *self.feature_shape))  # (B,S,C)

    def get_config(self) -> dict:
        config = {
            "network": self.network,
            "image_size": list(self.image_size),
            "trainable_blocks": self.trainable_blocks,
            "fit": self.fit,
        }
        if isinstance(self.network, str):
            return config
        if isinstance(self.network, dict):
            config["network"] = dict(self.network)  # plain, in place of Keras's tracked one
        else:
            config["network"] = keras.saving.serialize_keras_object(self.network)
        return config | {
            "scale": self.preprocessing.scale,
            "offset": self.preprocessing.offset,
        }


def check_image_size(image_size: Sequence[int]) -> tuple[int, int]:
    """`image_size` as (height, width); ValueError unless both are at least 32 pixels."""
    size = tuple(image_size) if isinstance(image_size, Sequence) else image_size
    if (
        not isinstance(size, tuple)
        or len(size) != 2
        or not all(isinstance(side, int) and side >= SMALLEST_SIDE for side in size)
    ):
        raise ValueError(
            f"Expected image_size=(height, width), each at least {SMALLEST_SIDE} pixels. "
            f"Received: image_size={size!r}"
        )
    return size


def model_image_size(model: keras.Model, image_size: Sequence[int] | None) -> tuple[int, int]:
    """The size a user's model takes, checked against the size asked for."""
    shape = getattr(model, "input_shape", None)
    if not isinstance(shape, tuple) or len(shape) != 4:
        raise ValueError(
            "Expected a built Keras model with one input of shape (B, h, w, 3). "
            f"Received: {getattr(model, 'name', model)!r} with input_shape={shape}"
        )
    own = shape[1:3]
    if image_size is None and None in own:
        raise ValueError(f"Expected image_size: {model.name} takes any. Received: image_size=None")
    size = check_image_size(image_size or own)
    if any(side not in (None, asked) for side, asked in zip(own, size, strict=True)):
        raise ValueError(
            f"Expected image_size={own}, which {model.name} was built for. "
            f"Received: image_size={size}"
        )
    return size


def feature_shape(model: keras.Model, image_size: tuple[int, int]) -> tuple[int, int]:
    """(S, C) of a model's output, which is a feature map (B, h, w, C) or a sequence (B, S, C)."""
    shape = model.compute_output_shape((None, *image_size, 3))
    if not isinstance(shape, tuple) or len(shape) not in (3, 4) or None in shape[1:]:
        raise ValueError(
            "Expected a network whose output is a feature map (B, h, w, C) or a sequence "
            f"(B, S, C). Received: {model.name} with output shape {shape}"
        )
    positions = shape[1] * shape[2] if len(shape) == 4 else shape[1]
    return positions, shape[-1]
