"""EfficientNet-Lite 0, 1 and 2: EfficientNet without squeeze-excite, with ReLU6 and a fixed stem.

The family is scaled as EfficientNet is (Tan and Le, 2019, https://arxiv.org/abs/1905.11946) with
three changes that make it easy to quantize (Liu, 2020,
https://blog.tensorflow.org/2020/03/higher-accuracy-on-vision-models-with-efficientnet-lite.html):
no squeeze-excite, ReLU6 instead of swish, and a stem, a head, a first and a last stage that are
not scaled. Layers are named as in `keras.applications`' EfficientNet.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

import keras
from keras import layers

# The network's input is `pixels * SCALE + OFFSET`, which is (pixels - 127) / 128, pixels 0..255.
SCALE = 1.0 / 128.0
OFFSET = -127.0 / 128.0

STEM_CHANNELS = 32
HEAD_CHANNELS = 1280
MIN_SIDE = 32  # pixels: the network halves each side five times


@dataclass(frozen=True)
class LiteVariant:
    """The scaling of one EfficientNet-Lite.

    Attributes:
        width: factor on the number of channels of every stage.
        depth: factor on the number of blocks of every stage but the first and the last.
        image_size: pixels per side at which the published weights were trained.
        dropout: rate before the classifier.
    """

    width: float
    depth: float
    image_size: int
    dropout: float


VARIANTS = {
    "lite0": LiteVariant(width=1.0, depth=1.0, image_size=224, dropout=0.2),
    "lite1": LiteVariant(width=1.0, depth=1.1, image_size=240, dropout=0.2),
    "lite2": LiteVariant(width=1.1, depth=1.2, image_size=260, dropout=0.3),
}

# kernel size, blocks, channels, expansion, stride of the first block; at width and depth 1
_STAGES = (
    (3, 1, 16, 1, 1),
    (3, 2, 24, 6, 2),
    (5, 2, 40, 6, 2),
    (3, 3, 80, 6, 2),
    (5, 3, 112, 6, 1),
    (5, 4, 192, 6, 2),
    (3, 1, 320, 6, 1),
)


@dataclass(frozen=True)
class _Block:
    """One inverted residual block; `name` is its stage and its letter in it, such as "block3a"."""

    name: str
    kernel: int
    channels: int
    expansion: int
    stride: int


def EfficientNetLite(  # noqa: N802  named as in keras.applications
    variant: str,
    image_size: int | tuple[int, int] | None = None,
    classes: int | None = None,
    drop_connect: float = 0.2,
) -> keras.Model:
    """Creates an EfficientNet-Lite with random weights.

    Its inputs are preprocessed: `pixels * SCALE + OFFSET`.
    `effcap.weights.lite_imagenet.load_lite_imagenet` loads the ImageNet weights.

    Args:
        variant: "lite0", "lite1" or "lite2".
        image_size: pixels per side, or (height, width), at least 32 (default: that of the
            published weights, 224, 240 or 260).
        classes: number of classes of a softmax classifier; the published one has 1000 (default:
            no classifier).
        drop_connect: rate at which the last residual branch is dropped in training; earlier
            branches are dropped proportionally less (default: 0.2).

    Returns:
        A functional model named "efficientnet_lite0" (or 1, 2), from (B, height, width, 3) to the
        feature map (B, ceil(height / 32), ceil(width / 32), 1280), or to the class probabilities
        (B, classes).

    Raises:
        ValueError: the variant is unknown, the image too small, there is no class, or the rate is
            outside [0, 1).
    """
    if variant not in VARIANTS:
        raise ValueError(
            f"Expected variant out of {sorted(VARIANTS)}. Received: variant={variant!r}"
        )
    if classes is not None and classes < 1:
        raise ValueError(f"Expected classes of at least 1, or None. Received: classes={classes}")
    if not 0 <= drop_connect < 1:
        raise ValueError(
            "Expected drop_connect from 0 up to but not including 1. "
            f"Received: drop_connect={drop_connect}"
        )
    height, width = _sides(image_size, VARIANTS[variant].image_size)

    images = keras.Input((height, width, 3), name="images")
    x = _conv(images, STEM_CHANNELS, 3, "stem", stride=2)  # (B, height/2, width/2, 32)
    blocks = list(_blocks(VARIANTS[variant]))
    for i, block in enumerate(blocks):
        x = _residual(x, block, drop_rate=drop_connect * i / len(blocks))
    x = _conv(x, HEAD_CHANNELS, 1, "top")  # (B, height/32, width/32, 1280)
    if classes is not None:
        x = layers.GlobalAveragePooling2D(name="avg_pool")(x)  # (B, 1280)
        x = layers.Dropout(VARIANTS[variant].dropout, name="top_dropout")(x)
        x = layers.Dense(
            classes,
            activation="softmax",
            kernel_initializer=keras.initializers.VarianceScaling(1 / 3, "fan_out", "uniform"),
            name="predictions",
        )(x)  # (B, classes)
    return keras.Model(images, x, name=f"efficientnet_{variant}")


def _sides(image_size: int | tuple[int, int] | None, native: int) -> tuple[int, int]:
    """Returns height and width in pixels, checked."""
    if image_size is None:
        return native, native
    sides = image_size if isinstance(image_size, tuple | list) else (image_size, image_size)
    if len(sides) != 2 or not all(isinstance(s, int) and s >= MIN_SIDE for s in sides):
        raise ValueError(
            f"Expected image_size=side or (height, width), each at least {MIN_SIDE}. "
            f"Received: image_size={image_size!r}"
        )
    return sides[0], sides[1]


def _blocks(variant: LiteVariant) -> Iterator[_Block]:
    """Yields the blocks of a variant in order."""
    for stage, (kernel, repeats, channels, expansion, stride) in enumerate(_STAGES):
        if stage not in (0, len(_STAGES) - 1):
            repeats = math.ceil(repeats * variant.depth)
        for index in range(repeats):
            yield _Block(
                name=f"block{stage + 1}{chr(ord('a') + index)}",
                kernel=kernel,
                channels=_scaled_channels(channels, variant.width),
                expansion=expansion,
                stride=stride if index == 0 else 1,
            )


def _scaled_channels(channels: int, width: float) -> int:
    """Rounds `channels * width` to a multiple of 8, at most a tenth down."""
    scaled = channels * width
    rounded = max(8, int(scaled + 4) // 8 * 8)
    return rounded + 8 if rounded < 0.9 * scaled else rounded


def _residual(x: keras.KerasTensor, block: _Block, drop_rate: float) -> keras.KerasTensor:
    """Applies a block: expansion, depthwise convolution, projection, residual if shapes allow."""
    inputs = x
    channels = x.shape[-1]
    if block.expansion != 1:
        # (B, h, w, C * expansion)
        x = _conv(x, channels * block.expansion, 1, f"{block.name}_expand")
    x = layers.DepthwiseConv2D(
        block.kernel,
        strides=block.stride,
        padding="same",
        use_bias=False,
        depthwise_initializer=_kernel_initializer(),
        name=f"{block.name}_dwconv",
    )(x)  # (B, h/stride, w/stride, C * expansion)
    x = _norm(x, f"{block.name}_bn")
    x = layers.Activation("relu6", name=f"{block.name}_activation")(x)
    # (B, h/stride, w/stride, channels)
    x = _conv(x, block.channels, 1, f"{block.name}_project", activation=False)
    if block.stride == 1 and block.channels == channels:
        if drop_rate > 0:
            x = layers.Dropout(drop_rate, (None, 1, 1, 1), name=f"{block.name}_drop")(x)
        x = layers.Add(name=f"{block.name}_add")([x, inputs])
    return x


def _conv(
    x: keras.KerasTensor,
    channels: int,
    kernel: int,
    name: str,
    stride: int = 1,
    activation: bool = True,
) -> keras.KerasTensor:
    """Applies `name`_conv (no bias), `name`_bn (batch norm) and `name`_activation (ReLU6)."""
    x = layers.Conv2D(
        channels,
        kernel,
        strides=stride,
        padding="same",  # as trained: pads the far side more if the padding is odd
        use_bias=False,
        kernel_initializer=_kernel_initializer(),
        name=f"{name}_conv",
    )(x)  # (B, h/stride, w/stride, channels)
    x = _norm(x, f"{name}_bn")
    return layers.Activation("relu6", name=f"{name}_activation")(x) if activation else x


def _norm(x: keras.KerasTensor, name: str) -> keras.KerasTensor:
    return layers.BatchNormalization(momentum=0.99, epsilon=1e-3, name=name)(x)


def _kernel_initializer() -> keras.initializers.Initializer:
    return keras.initializers.VarianceScaling(2.0, "fan_out", "untruncated_normal")
