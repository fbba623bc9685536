"""The vision networks known by name, each with its image size and its preprocessing."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, fields, replace
from functools import partial
from typing import Any, Literal

import keras
from keras import ops

from effcap.backbones import efficientnet_lite as lite
from effcap.backbones import swin
from effcap.backbones.clip_resnet import RESNET_VARIANTS, ClipResNet, ClipResNetVariant
from effcap.backbones.clip_vit import CLIP_VIT_VARIANTS, ClipViT, ClipViTVariant
from effcap.backbones.pixel_statistics import (
    CLIP_MEAN,
    CLIP_STDDEV,
    HALF,
    IMAGENET_MEAN,
    IMAGENET_STDDEV,
)
from effcap.backbones.vit import VisionTransformer
from effcap.backbones.vit_sizes import BLIP_VARIANTS, VIT_VARIANTS, ViTVariant
from effcap.images import Fit

TOKENS, EMBEDDING = "tokens", "embedding"  # outputs
# Sizes of a vision transformer that can be changed.
SIZES = tuple(
    field.name
    for field in fields(ViTVariant)
    if field.name not in ("embedding_dim", "has_pre_norm", "has_patch_bias")
)
Build = Callable[[tuple[int, int, int]], keras.Model]


@dataclass(frozen=True)
class Preprocessing:
    """Maps pixels 0..255 to pixels * scale + offset.

    Attributes:
        scale: a number, or one number per channel.
        offset: a number, or one number per channel.
    """

    scale: float | Sequence[float] = 1.0
    offset: float | Sequence[float] = 0.0

    def __call__(self, images: Any) -> Any:
        """Returns preprocessed images (B, h, w, 3), in the dtype of `images`."""
        scale = ops.convert_to_tensor(self.scale, dtype=images.dtype)
        offset = ops.convert_to_tensor(self.offset, dtype=images.dtype)
        return images * scale + offset


@dataclass(frozen=True)
class BackboneSpec:
    """A vision network that is known by name.

    Attributes:
        build: returns the network, with random weights and without classifier and preprocessing,
            for an input shape (h, w, 3).
        image_size: default height and width in pixels.
        preprocessing: the network's own.
        application: function of `keras.applications` that has ImageNet weights for it, if any.
        build_embedding: returns the network with one image vector (B, 1, E) as its output, if it
            has one.
        fit: default fitting of photos of another aspect ratio.
        weights: kind of the published weights.
        with_sizes: returns the entry with changed sizes, if the network can have others.
        min_side: minimum height and width in pixels.
    """

    build: Build
    image_size: tuple[int, int]
    preprocessing: Preprocessing
    application: Callable[..., keras.Model] | None = None
    build_embedding: Build | None = None
    fit: Fit = "squash"
    weights: Literal["imagenet", "clip", "vit", "blip"] = "imagenet"
    with_sizes: Callable[[Mapping[str, Any]], BackboneSpec] | None = None
    min_side: int = 32


def find_spec(network: str, sizes: Mapping[str, Any] | None = None) -> BackboneSpec:
    """Returns the entry of a network in `BACKBONES`, with changed sizes if any are given.

    Raises:
        ValueError: there is none, or it cannot have other sizes.
    """
    if network not in BACKBONES:
        raise ValueError(
            f"Expected network in {', '.join(BACKBONES)}, or a Keras model. "
            f"Received: network={network!r}"
        )
    spec = BACKBONES[network]
    if not sizes:
        return spec
    if spec.with_sizes is None:
        resizable = ", ".join(name for name, spec in BACKBONES.items() if spec.with_sizes)
        raise ValueError(
            f"Only {resizable} can have other sizes, not {network}. Received: sizes={dict(sizes)!r}"
        )
    return spec.with_sizes(sizes)


def find_builder(network: str, spec: BackboneSpec, output: str) -> Build:
    """Returns the function that builds a named network with one of its outputs.

    Raises:
        ValueError: it has no such output.
    """
    builders = {TOKENS: spec.build}
    if spec.build_embedding is not None:
        builders[EMBEDDING] = spec.build_embedding
    check_output(output, builders, network)
    return builders[output]


def check_output(output: str, outputs: Iterable[str], network: str) -> None:
    """Checks that a network has an output.

    Raises:
        ValueError: it does not.
    """
    if output not in outputs:
        raise ValueError(
            f"Expected output in {', '.join(outputs)} for {network}. Received: output={output!r}"
        )


def standardization(mean: Sequence[float], stddev: Sequence[float]) -> Preprocessing:
    """Returns (pixels / 255 - mean) / stddev, per channel."""
    return Preprocessing(
        scale=tuple(1 / (255 * x) for x in stddev),
        offset=tuple(-m / x for m, x in zip(mean, stddev, strict=True)),
    )


# keras.applications preprocesses inside the model, and for EfficientNet V1 differently with
# weights="imagenet" than with weights=None. Here the network starts after its preprocessing, so
# that it receives the same pixels either way.
STANDARDIZE = standardization(IMAGENET_MEAN, IMAGENET_STDDEV)
STANDARDIZE_CLIP = standardization(CLIP_MEAN, CLIP_STDDEV)
STANDARDIZE_HALF = standardization(HALF, HALF)
MINUS_ONE_TO_ONE = Preprocessing(scale=1 / 128, offset=-1.0)


def build_application(
    application: Callable[..., keras.Model], input_shape: tuple[int, int, int]
) -> keras.Model:
    """Returns a network of `keras.applications` without its preprocessing and its classifier.

    Args:
        application: such as `keras.applications.EfficientNetB0`.
        input_shape: (h, w, 3).
    """
    model = application(include_top=False, weights=None, input_shape=input_shape)
    preprocessing = (keras.layers.Rescaling, keras.layers.Normalization)
    last = max(i for i, layer in enumerate(model.layers) if isinstance(layer, preprocessing))
    return keras.Model(model.layers[last].output, model.output, name=model.name)


def _application_spec(
    application: Callable[..., keras.Model], side: int, preprocessing: Preprocessing
) -> BackboneSpec:
    build = partial(build_application, application)
    return BackboneSpec(build, (side, side), preprocessing, application)


def _lite_spec(variant: str) -> BackboneSpec:
    side = lite.VARIANTS[variant].image_size

    def build(input_shape: tuple[int, int, int]) -> keras.Model:
        return lite.EfficientNetLite(variant, image_size=input_shape[:2])

    return BackboneSpec(build, (side, side), Preprocessing(lite.SCALE, lite.OFFSET))


def _swin_spec(variant: str) -> BackboneSpec:
    arguments = swin.VARIANTS[variant]

    def build(input_shape: tuple[int, int, int]) -> keras.Model:
        return swin.SwinTransformer(**{**arguments, "image_size": input_shape[:2]}, name=variant)

    return BackboneSpec(build, arguments["image_size"], STANDARDIZE)


def _build_xvlm_swin(input_shape: tuple[int, int, int]) -> keras.Model:
    return swin.SwinTransformer(**swin.xvlm_arguments(input_shape[:2]), name=swin.XVLM)


def clip_spec(
    network: Callable[..., keras.Model], variant: ClipViTVariant | ClipResNetVariant, side: int
) -> BackboneSpec:
    """Returns the entry of an image tower of CLIP.

    Args:
        network: `ClipViT` or `ClipResNet`.
        variant: its sizes.
        side: default height and width in pixels.
    """

    def build(input_shape: tuple[int, int, int], embedding: bool = False) -> keras.Model:
        return network(variant, input_shape[:2], embedding)

    return BackboneSpec(
        build,
        (side, side),
        STANDARDIZE_CLIP,
        build_embedding=partial(build, embedding=True),
        fit="crop",
        weights="clip",
    )


def vit_spec(
    name: str,
    variant: ViTVariant,
    side: int,
    preprocessing: Preprocessing,
    weights: Literal["vit", "blip"],
) -> BackboneSpec:
    """Returns the entry of a vision transformer.

    Args:
        name: name of the model.
        variant: its sizes.
        side: default height and width in pixels.
        preprocessing: the network's own.
        weights: kind of the published weights.
    """

    def build(input_shape: tuple[int, int, int]) -> keras.Model:
        return VisionTransformer(variant, input_shape[:2], name=name)

    def with_sizes(sizes: Mapping[str, Any]) -> BackboneSpec:
        unknown = sorted(set(sizes) - set(SIZES))
        if unknown:
            raise ValueError(
                f"Expected sizes out of {', '.join(SIZES)}. Received: {', '.join(unknown)}"
            )
        return vit_spec(name, replace(variant, **sizes), side, preprocessing, weights)

    return BackboneSpec(
        build,
        (side, side),
        preprocessing,
        weights=weights,
        with_sizes=with_sizes,
        min_side=variant.patch_size,
    )


_SIDES = {"B0": 224, "B1": 240, "B2": 260, "B3": 300, "B4": 380, "B5": 456, "B6": 528, "B7": 600}
_SIDES_V2 = {"B0": 224, "B1": 240, "B2": 260, "B3": 300, "S": 384, "M": 480, "L": 480}

BACKBONES: dict[str, BackboneSpec] = {
    f"efficientnet_{size.lower()}": _application_spec(
        getattr(keras.applications, f"EfficientNet{size}"), side, STANDARDIZE
    )
    for size, side in _SIDES.items()
}
BACKBONES |= {
    f"efficientnet_v2_{size.lower()}": _application_spec(
        getattr(keras.applications, f"EfficientNetV2{size}"),
        side,
        STANDARDIZE if size.startswith("B") else MINUS_ONE_TO_ONE,
    )
    for size, side in _SIDES_V2.items()
}
BACKBONES |= {f"efficientnet_{variant}": _lite_spec(variant) for variant in lite.VARIANTS}
BACKBONES |= {variant: _swin_spec(variant) for variant in swin.VARIANTS}
BACKBONES[swin.XVLM] = BackboneSpec(_build_xvlm_swin, (384, 384), STANDARDIZE_CLIP)
BACKBONES |= {
    f"clip_{name}": clip_spec(ClipViT, variant, 224) for name, variant in CLIP_VIT_VARIANTS.items()
}
BACKBONES |= {
    f"clip_{name}": clip_spec(ClipResNet, variant, 288) for name, variant in RESNET_VARIANTS.items()
}
BACKBONES |= {
    name: vit_spec(name, variant, 224, STANDARDIZE_HALF, "vit")
    for name, variant in VIT_VARIANTS.items()
}
BACKBONES |= {
    name: vit_spec(name, variant, 384, STANDARDIZE_CLIP, "blip")
    for name, variant in BLIP_VARIANTS.items()
}
