"""The residual networks of CLIP (Radford et al. 2021, https://arxiv.org/abs/2103.00020).

They differ from ResNet-50 in a stem of three convolutions with average pooling, in average pooling
before each strided convolution, which is applied without stride then, and in attention instead of
average pooling at the end.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import keras
from keras import layers, ops

from effcap.backbones.vit import check_multiple
from effcap.layers.attention import attend, split_heads
from effcap.layers.embedding import Embedding

STRIDE = 32  # pixels per position of the feature map
EXPANSION = 4  # of the last convolution of a block
HEAD_DIM = 64


@dataclass(frozen=True)
class ClipResNetVariant:
    """The sizes of a residual network of CLIP.

    Attributes:
        num_blocks: number of blocks in each of the four stages.
        width: channels of the stem; the feature map has C = 32 * width channels.
        embedding_dim: width E of the projected image vector.
    """

    num_blocks: tuple[int, int, int, int]
    width: int
    embedding_dim: int


RESNET_VARIANTS = {"rn50x4": ClipResNetVariant((4, 6, 10, 6), width=80, embedding_dim=640)}


def ClipResNet(  # noqa: N802  named as in keras.applications
    variant: ClipResNetVariant,
    image_size: tuple[int, int],
    embedding: bool = False,
    name: str = "clip_resnet",
) -> keras.Model:
    """Creates a residual network of CLIP with random weights.

    Args:
        variant: the sizes.
        image_size: height and width in pixels, multiples of 32.
        embedding: whether the output is the projected image vector instead of the feature map.
        name: name of the model.

    Returns:
        A functional model from preprocessed images (B, height, width, 3) to the feature map
        (B, height / 32, width / 32, C), or to the image vector (B, 1, E), which is not normalized.

    Raises:
        ValueError: the image size is not a multiple of 32.
    """
    check_multiple(image_size, STRIDE)
    width = variant.width
    images = keras.Input((*image_size, 3), name="images")
    x = layers.ZeroPadding2D(1, name="pad")(images)  # "same" pads a strided convolution elsewhere
    x = _conv(x, width // 2, 3, "conv1", "bn1", stride=2)  # (B,height/2,width/2,width/2)
    x = _conv(x, width // 2, 3, "conv2", "bn2")
    x = _conv(x, width, 3, "conv3", "bn3")  # (B,height/2,width/2,width)
    x = layers.AveragePooling2D(2, name="avgpool")(x)  # (B,height/4,width/4,width)
    for stage, num_blocks in enumerate(variant.num_blocks):
        for block in range(num_blocks):
            stride = 2 if stage > 0 and block == 0 else 1
            x = _bottleneck(x, width * 2**stage, stride, f"layer{stage + 1}_{block}")
    if embedding:
        heads = x.shape[-1] // HEAD_DIM
        x = AttentionPool(heads, variant.embedding_dim, name="attnpool")(x)  # (B,1,E)
    return keras.Model(images, x, name=name)


def _bottleneck(x: keras.KerasTensor, channels: int, stride: int, name: str) -> keras.KerasTensor:
    """Applies a block: (B, h, w, c) to (B, h / stride, w / stride, 4 * channels)."""
    shortcut, outputs = x, channels * EXPANSION
    x = _conv(x, channels, 1, f"{name}_conv1", f"{name}_bn1")
    x = _conv(x, channels, 3, f"{name}_conv2", f"{name}_bn2")  # (B,h,w,channels)
    if stride > 1:
        x = layers.AveragePooling2D(stride, name=f"{name}_avgpool")(x)
    # (B,h/stride,w/stride,outputs)
    x = _conv(x, outputs, 1, f"{name}_conv3", f"{name}_bn3", activation=False)
    if stride > 1 or shortcut.shape[-1] != outputs:
        if stride > 1:
            shortcut = layers.AveragePooling2D(stride, name=f"{name}_downsample_avgpool")(shortcut)
        conv, norm = f"{name}_downsample_conv", f"{name}_downsample_bn"
        # (B,h/stride,w/stride,outputs)
        shortcut = _conv(shortcut, outputs, 1, conv, norm, activation=False)
    x = layers.Add(name=f"{name}_add")([x, shortcut])
    return layers.ReLU(name=f"{name}_relu")(x)


def _conv(
    x: keras.KerasTensor,
    channels: int,
    kernel: int,
    name: str,
    norm: str,
    stride: int = 1,
    activation: bool = True,
) -> keras.KerasTensor:
    """Applies a convolution without bias, a batch norm and, by default, a ReLU."""
    x = layers.Conv2D(
        channels,
        kernel,
        strides=stride,
        padding="valid" if stride > 1 else "same",
        use_bias=False,
        kernel_initializer="he_normal",
        name=name,
    )(x)  # (B,h/stride,w/stride,channels)
    x = layers.BatchNormalization(momentum=0.9, epsilon=1e-5, name=norm)(x)
    return layers.ReLU(name=f"{name}_relu")(x) if activation else x


@keras.saving.register_keras_serializable("effcap")
class AttentionPool(layers.Layer):
    """Pools a feature map by attention; the query is the mean over its positions.

    Keys and values are the mean and all positions, with learned position embeddings.

    Args:
        num_heads: number of heads H.
        embedding_dim: width E of the output.

    Call arguments:
        x: feature map (B, h, w, C).

    Returns:
        (B, 1, E).
    """

    def __init__(self, num_heads: int, embedding_dim: int, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.num_heads, self.embedding_dim = num_heads, embedding_dim

    def build(self, shape: tuple) -> None:
        _, height, width, channels = shape
        initializer = keras.initializers.RandomNormal(stddev=channels**-0.5)

        def dense(units: int, name: str) -> layers.Dense:
            layer = layers.Dense(units, kernel_initializer=initializer.clone(), name=name)
            layer.build((None, None, channels))
            return layer

        self.position_embedding = Embedding(height * width + 1, channels, name="position_embedding")
        self.position_embedding.build()
        self.query, self.key = dense(channels, "query"), dense(channels, "key")
        self.value = dense(channels, "value")
        self.c_proj = dense(self.embedding_dim, "c_proj")
        self.built = True

    def call(self, x: Any) -> Any:
        _, height, width, channels = x.shape
        x = ops.reshape(x, (-1, height * width, channels))  # (B,hw,C)
        x = ops.concatenate([ops.mean(x, axis=1, keepdims=True), x], axis=1)  # (B,S,C)
        x = x + ops.cast(self.position_embedding.embeddings, x.dtype)
        queries = split_heads(self.query(x[:, :1]), 1, self.num_heads)[0]  # (B,H,1,d)
        keys = split_heads(self.key(x), 1, self.num_heads)[0]  # (B,H,S,d)
        values = split_heads(self.value(x), 1, self.num_heads)[0]  # (B,H,S,d)
        pooled, _ = attend(queries, keys, values)  # (B,1,C)
        return self.c_proj(pooled)  # (B,1,E)

    def compute_output_shape(self, shape: tuple) -> tuple:
        return (shape[0], 1, self.embedding_dim)

    def get_config(self) -> dict[str, Any]:
        sizes = {"num_heads": self.num_heads, "embedding_dim": self.embedding_dim}
        return super().get_config() | sizes
