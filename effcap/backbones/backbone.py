"""A vision network with its preprocessing and its image size, as one layer."""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from typing import Any, get_args

import keras
from keras import ops

from effcap.backbones.blocks import find_blocks
from effcap.backbones.registry import (
    TOKENS,
    Preprocessing,
    check_output,
    find_builder,
    find_spec,
)
from effcap.images import Fit, Resample
from effcap.utils.batch_norm_kernel import fuse_batch_norms

MIN_SIDE = 32  # pixels, of a user's model


class Backbone(keras.layers.Layer):
    """A vision network with its own preprocessing, from pixels 0..255 to features (B, S, C).

    Args:
        network: vision network, a name such as "efficientnet_lite0" or a Keras model. Names are
            those in `effcap.backbones.registry.BACKBONES` ("efficientnet_b0" … "efficientnet_b7",
            "efficientnet_v2_b0" … "efficientnet_v2_l", "efficientnet_lite0" …
            "efficientnet_lite2", "swin_tiny" … "swin_large_384", "xvlm_swin_base", "clip_vit_b32",
            "clip_vit_b16", both also with the suffix "_gelu", "clip_rn50x4", "vit_b16",
            "blip_vit_b16" and "blip_vit_l16"). A Keras model maps images to a feature map
            (B, h, w, C) or a sequence (B, S, C).
        image_size: height and width in pixels (default: the network's own).
        trainable_blocks: number of trainable blocks, counted from the last, or "all" (default: 0).
            Layers before them are frozen, including batch-norm statistics; see `find_blocks`.
        scale: factor of the pixels, one number or one per channel (default: the network's own, 1
            for a Keras model). The network receives pixels * scale + offset.
        offset: offset of the scaled pixels, one number or one per channel (default: the network's
            own, 0 for a Keras model).
        fit: fitting of photos of another aspect ratio, "squash", "crop" or "pad" (default: the
            network's own, "crop" for CLIP and "squash" for all others). It is used in training and
            in generation; see `effcap.images.load_photo`.
        resample: filter of Pillow that resizes photos, "nearest", "bilinear", "bicubic", "lanczos",
            "box" or "hamming" (default: bicubic after a fast reduction to no less than twice the
            image size). It is used in training and in generation, as `fit` is.
        sizes: changed sizes of a vision transformer, such as {"num_layers": 6}; see
            `effcap.backbones.vit_sizes.ViTVariant` (default: those of its name).
        output: "tokens" for the network's features, or "embedding" for the one vector (B, 1, E)
            that CLIP compares to text (default: "tokens"). Only CLIP has both.

    Call arguments:
        images: (B, h, w, 3), pixels 0..255.

    Returns:
        Features (B, S, C).

    Raises:
        ValueError: the network, the fit or the filter is unknown, the sizes or the image size do
            not fit the network, it has no such output, or fewer than `trainable_blocks` blocks.
    """

    def __init__(
        self,
        network: str | keras.Model | dict,
        image_size: Sequence[int] | None = None,
        trainable_blocks: int | str = 0,
        scale: float | Sequence[float] | None = None,
        offset: float | Sequence[float] | None = None,
        fit: Fit | None = None,
        output: str = TOKENS,
        resample: Resample | None = None,
        sizes: Mapping[str, Any] | None = None,
        name: str = "backbone",
        **kwargs: Any,
    ) -> None:
        super().__init__(name=name, **kwargs)
        if fit not in (None, *get_args(Fit)):
            raise ValueError(f"Expected fit in {', '.join(get_args(Fit))}. Received: fit={fit!r}")
        if resample not in (None, *get_args(Resample)):
            raise ValueError(
                f"Expected resample in {', '.join(get_args(Resample))}, or None. "
                f"Received: resample={resample!r}"
            )
        if isinstance(network, str):
            spec = find_spec(network, sizes)
            self.fit: Fit = fit or spec.fit
            self.image_size = check_image_size(image_size or spec.image_size, spec.min_side)
            own = spec.preprocessing
            self.net = find_builder(network, spec, output)((*self.image_size, 3))
        else:
            self.net = (
                keras.saving.deserialize_keras_object(in_storage_dtype(network))
                if isinstance(network, dict)
                else network
            )
            check_output(output, (TOKENS,), "a Keras model")
            if sizes:
                raise ValueError(
                    f"A Keras model has its own sizes. Received: sizes={dict(sizes)!r}"
                )
            self.fit = fit or "squash"
            self.image_size = model_image_size(self.net, image_size)
            own = Preprocessing()
        fuse_batch_norms(self.net)
        self.preprocessing = Preprocessing(
            own.scale if scale is None else scale, own.offset if offset is None else offset
        )
        self.has_own_preprocessing = self.preprocessing == own
        self.resample, self.sizes = resample, dict(sizes or {})
        self.output_kind = output  # Keras has an attribute `output`
        self.network = network
        self.feature_shape = feature_shape(self.net, self.image_size)
        self.trainable_blocks = trainable_blocks
        self._freeze()

    @property
    def blocks(self) -> list[list[keras.layers.Layer]]:
        """Layers of each of the network's blocks, first to last."""
        return find_blocks(self.net)

    @property
    def grid(self) -> tuple[tuple[int, int], int]:
        """Height and width of the grid of positions, and the number of positions before it.

        Raises:
            ValueError: the positions form no grid over the photo.
        """
        shape = self.net.compute_output_shape((None, *self.image_size, 3))
        return find_grid(shape[1:-1], self.image_size)

    def _freeze(self) -> None:
        """Freezes all layers before the last `trainable_blocks` blocks.

        Raises:
            ValueError: `trainable_blocks` is neither "all" nor from 0 to the number of blocks.
        """
        count = self.trainable_blocks
        if count in ("all", 0) and not isinstance(count, bool):
            self.net.trainable = count == "all"
            return
        blocks = self.blocks
        if not blocks:
            raise ValueError(
                f"{self.net.name} has no blocks that can be trained apart from the rest: use "
                f'trainable_blocks="all", or 0. Received: trainable_blocks={count!r}'
            )
        if not isinstance(count, int) or isinstance(count, bool) or not 0 < count <= len(blocks):
            raise ValueError(
                f"Expected trainable_blocks from 0 to {len(blocks)} (the number of blocks of "
                f'{self.net.name}), or "all". Received: trainable_blocks={count!r}'
            )
        self.net.trainable = True
        first = blocks[-count][0]
        for layer in self.net.layers:  # in topological order
            if layer is first:
                break
            layer.trainable = False

    def build(self, shape: Any = None) -> None:
        self.built = True

    def call(self, images: Any, training: bool | None = None) -> Any:
        if not self.net.trainable_variables and not self.net.trainable:
            training = False  # no stochastic depth in a frozen network either
        x = self.preprocessing(ops.cast(images, self.compute_dtype))  # (B,h,w,3)
        x = self.net(x, training=training)  # (B,h,w,C) or (B,S,C)
        if not any(variable.trainable for variable in self.net.variables):
            x = ops.stop_gradient(x)  # TensorFlow would trace the gradients of frozen weights, too
        return ops.reshape(x, (-1, *self.feature_shape))  # (B,S,C)

    def get_config(self) -> dict[str, Any]:
        config = {
            "network": self.network,
            "image_size": list(self.image_size),
            "trainable_blocks": self.trainable_blocks,
            "fit": self.fit,
        }
        if self.output_kind != TOKENS:
            config["output"] = self.output_kind
        if self.resample is not None:
            config["resample"] = self.resample
        if self.sizes:
            config["sizes"] = dict(self.sizes)
        if isinstance(self.network, dict):
            config["network"] = dict(self.network)  # instead of the dict that Keras tracks
        elif not isinstance(self.network, str):
            config["network"] = keras.saving.serialize_keras_object(self.network)
        elif self.has_own_preprocessing:
            return config
        return config | {
            "scale": self.preprocessing.scale,
            "offset": self.preprocessing.offset,
        }


def in_storage_dtype(network: Mapping[str, Any]) -> dict[str, Any]:
    """Returns a copy of a serialized Keras model, whose weights are stored in Keras's dtype.

    Serialized layers have their own dtype policies. Those of float32 are replaced if Keras's policy
    stores weights in another dtype.
    """
    policy = keras.config.dtype_policy()

    def convert(value: Any) -> Any:
        if isinstance(value, Mapping):
            if value.get("class_name") == "DTypePolicy" and value["config"]["name"] == "float32":
                return {**value, "config": {"name": policy.name}}
            return {name: convert(item) for name, item in value.items()}
        return [convert(item) for item in value] if isinstance(value, list) else value

    if policy.variable_dtype == "float32":
        return copy.deepcopy(dict(network))
    return convert(network)


def check_image_size(image_size: Sequence[int], min_side: int = MIN_SIDE) -> tuple[int, int]:
    """Returns `image_size` as (height, width).

    Raises:
        ValueError: it is not two integers of at least `min_side` pixels.
    """
    size = tuple(image_size) if isinstance(image_size, Sequence) else image_size
    if (
        not isinstance(size, tuple)
        or len(size) != 2
        or not all(isinstance(side, int) and side >= min_side for side in size)
    ):
        raise ValueError(
            f"Expected image_size=(height, width), each at least {min_side} pixels. "
            f"Received: image_size={size!r}"
        )
    return size


def model_image_size(model: keras.Model, image_size: Sequence[int] | None) -> tuple[int, int]:
    """Returns the image size of a user's model, checked against the requested one.

    Args:
        model: a built model with one input (B, h, w, 3).
        image_size: requested height and width; None for the model's own.

    Raises:
        ValueError: the model has no such input, or was built for another size.
    """
    shape = getattr(model, "input_shape", None)
    if not isinstance(shape, tuple) or len(shape) != 4:
        raise ValueError(
            "Expected a built Keras model with one input of shape (B, h, w, 3). "
            f"Received: {getattr(model, 'name', model)!r} with input_shape={shape}"
        )
    built_for = shape[1:3]
    if image_size is None and None in built_for:
        raise ValueError(
            f"Expected image_size, because {model.name} takes images of any size. "
            "Received: image_size=None"
        )
    size = check_image_size(image_size or built_for)
    if any(side not in (None, requested) for side, requested in zip(built_for, size, strict=True)):
        raise ValueError(
            f"Expected image_size={built_for}, which {model.name} was built for. "
            f"Received: image_size={size}"
        )
    return size


def find_grid(shape: Sequence[int], image_size: tuple[int, int]) -> tuple[tuple[int, int], int]:
    """Returns the grid of a network's positions over its images.

    Args:
        shape: (h, w) of a feature map, or (S,) of a sequence, which goes row by row through the
            grid and may start with the position of a class token or a mean.
        image_size: height and width of the images in pixels.

    Returns:
        Height and width of the grid, and the number of positions before it, 0 or 1.

    Raises:
        ValueError: the positions of a sequence form no grid of the image's proportions.
    """
    if len(shape) == 2:
        return (shape[0], shape[1]), 0
    for leading in (0, 1):
        size = shape[0] - leading
        height = round((size * image_size[0] / image_size[1]) ** 0.5)
        if size > 1 and height and height * (size // height) == size:
            width = size // height
            if abs(height / image_size[0] - width / image_size[1]) * max(image_size) < 1:
                return (height, width), leading
    raise ValueError(
        f"The {shape[0]} positions of the backbone form no grid over images of "
        f"{image_size[0]}x{image_size[1]} pixels, so there is no map of them"
    )


def feature_shape(model: keras.Model, image_size: tuple[int, int]) -> tuple[int, int]:
    """Returns (S, C) of a model's output, a feature map (B, h, w, C) or a sequence (B, S, C).

    Raises:
        ValueError: the output is neither.
    """
    shape = model.compute_output_shape((None, *image_size, 3))
    if not isinstance(shape, tuple) or len(shape) not in (3, 4) or None in shape[1:]:
        raise ValueError(
            "Expected a network whose output is a feature map (B, h, w, C) or a sequence "
            f"(B, S, C). Received: {model.name} with output shape {shape}"
        )
    positions = shape[1] * shape[2] if len(shape) == 4 else shape[1]
    return positions, shape[-1]
