"""Swin transformer: self-attention in windows that are shifted in every second block.

Liu et al., "Swin Transformer: Hierarchical Vision Transformer using Shifted Windows", ICCV 2021,
https://arxiv.org/abs/2103.14030. Letters beside those of the project: (h, w) is the resolution of a
stage in tokens, n = h*w, W the number of windows of an image and N = window_size ** 2 the tokens in
one.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import keras
from keras import layers, ops

from effcap.backbones.swin_block import EPSILON, SwinBlock, pad_grid
from effcap.layers.attention import INITIALIZER_STDDEV, dense

PATCH_SIZE = 4  # pixels
# Arguments of the published sizes.
BASE: dict[str, Any] = {
    "image_size": (224, 224),
    "embed_dim": 128,
    "depths": (2, 2, 18, 2),
    "num_heads": (4, 8, 16, 32),
    "window_size": 7,
}
_SMALL = {**BASE, "embed_dim": 96, "num_heads": (3, 6, 12, 24)}
_LARGE = {**BASE, "embed_dim": 192, "num_heads": (6, 12, 24, 48)}
_AT_384 = {"image_size": (384, 384), "window_size": 12}
VARIANTS: dict[str, dict[str, Any]] = {
    "swin_tiny": {**_SMALL, "depths": (2, 2, 6, 2)},
    "swin_small": _SMALL,
    "swin_base": BASE,
    "swin_base_384": {**BASE, **_AT_384},
    "swin_large": _LARGE,
    "swin_large_384": {**_LARGE, **_AT_384},
}
XVLM = "xvlm_swin_base"


@keras.saving.register_keras_serializable("effcap")
class SwinTransformer(keras.Model):
    """A Swin transformer with random weights and without classifier.

    The defaults are Swin-B. `effcap.weights.swin.load_swin` loads published weights. Sides that are
    not a multiple of the patch, of a window, or of two where resolution is halved are padded with
    zeros on the right and at the bottom, as in the original's code for object detection. A stage
    whose smaller side is at most `window_size` has windows of that side, which are not shifted.

    Args:
        image_size: height and width in pixels, at least 32 (default: 224 x 224).
        embed_dim: width of the first stage, doubled by each following one (default: 128).
        depths: number of blocks of each stage.
        num_heads: number of heads in each stage.
        window_size: side of a window in tokens (default: 7).
        drop_path: rate at which the last block's residual branches are dropped in training; earlier
            ones are dropped proportionally less (default: 0.1).
        mean_token: whether the mean of the output's tokens comes before them, as in X-VLM
            (default: False).

    Call arguments:
        images: preprocessed images (B, height, width, 3).

    Returns:
        Normalized tokens (B, S, C) of the last stage, row by row. S = h*w, or h*w + 1 with
        `mean_token`; h is ceil(height / 32) with four stages, C = 8 * embed_dim.

    Raises:
        ValueError: a size is not positive, there are more or fewer `num_heads` than `depths`, or a
            stage's width is not a multiple of its number of heads.
    """

    def __init__(
        self,
        image_size: Sequence[int] = (224, 224),
        embed_dim: int = 128,
        depths: Sequence[int] = (2, 2, 18, 2),
        num_heads: Sequence[int] = (4, 8, 16, 32),
        window_size: int = 7,
        drop_path: float = 0.1,
        mean_token: bool = False,
        **kwargs: Any,
    ) -> None:
        sizes = (*image_size, embed_dim, *depths, *num_heads, window_size)
        if len(depths) != len(num_heads) or min(sizes, default=0) < 1 or not depths:
            raise ValueError(
                "Expected positive sizes, and num_heads for each of the depths. "
                f"Received: image_size={image_size}, embed_dim={embed_dim}, depths={depths}, "
                f"num_heads={num_heads}, window_size={window_size}"
            )
        if not 0 <= drop_path < 1:
            raise ValueError(
                "Expected drop_path from 0 up to but not including 1. "
                f"Received: drop_path={drop_path}"
            )
        kwargs.setdefault("name", "swin")
        images = keras.Input((*image_size, 3), name="images")
        x = PatchEmbedding(embed_dim, name="patch_embedding")(images)  # (B,h,w,C)
        last, number = max(1, sum(depths) - 1), 0
        for stage, (depth, heads) in enumerate(zip(depths, num_heads, strict=True)):
            for i in range(depth):
                block = SwinBlock(
                    heads,
                    window_size,
                    shifted=i % 2 == 1,
                    drop_path=drop_path * number / last,
                    name=f"stage{stage}_block{i}",
                )
                x, number = block(x), number + 1  # (B,h,w,C)
            if stage < len(depths) - 1:
                x = PatchMerging(name=f"stage{stage}_merging")(x)  # (B,h/2,w/2,2C)
        x = layers.LayerNormalization(epsilon=EPSILON, name="norm")(x)  # (B,h,w,C)
        _, height, width, channels = x.shape
        x = layers.Reshape((height * width, channels), name="tokens")(x)  # (B,S,C)
        if mean_token:
            x = MeanToken(name="mean_token")(x)  # (B,1+S,C)
        super().__init__(inputs=images, outputs=x, **kwargs)
        self.image_size, self.embed_dim = tuple(image_size), embed_dim
        self.depths, self.num_heads = tuple(depths), tuple(num_heads)
        self.window_size, self.drop_path, self.mean_token = window_size, drop_path, mean_token

    def get_config(self) -> dict[str, Any]:
        return {
            "image_size": list(self.image_size),
            "embed_dim": self.embed_dim,
            "depths": list(self.depths),
            "num_heads": list(self.num_heads),
            "window_size": self.window_size,
            "drop_path": self.drop_path,
            "mean_token": self.mean_token,
            "name": self.name,
            "trainable": self.trainable,
        }

    @classmethod
    def from_config(cls, config: dict[str, Any], custom_objects: Any = None) -> SwinTransformer:
        return cls(**config)


def xvlm_arguments(image_size: Sequence[int]) -> dict[str, Any]:
    """Returns the arguments of X-VLM's vision encoder, Swin-B with a mean token and large windows.

    One window covers the last stage of a square image: 7 tokens a side at 224 pixels, 12 at 384 and
    15 at 480, as in the original's configurations.

    Args:
        image_size: height and width in pixels, at least 32.
    """
    window_size = min(image_size) // 32
    return {**BASE, "image_size": image_size, "window_size": window_size, "mean_token": True}


class PatchEmbedding(layers.Layer):
    """Projects patches of 4x4 pixels to tokens, and normalizes them.

    Args:
        hidden_dim: width C of a token.

    Call arguments:
        images: (B, height, width, 3).

    Returns:
        Tokens (B, ceil(height / 4), ceil(width / 4), C).
    """

    def __init__(self, hidden_dim: int, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.hidden_dim = hidden_dim
        self.projection = layers.Conv2D(
            hidden_dim,
            PATCH_SIZE,
            strides=PATCH_SIZE,
            kernel_initializer=keras.initializers.RandomNormal(stddev=INITIALIZER_STDDEV),
            name="projection",
        )
        self.norm = layers.LayerNormalization(epsilon=EPSILON, name="norm")

    def build(self, shape: Any) -> None:
        self.projection.build(shape)
        self.norm.build(self.compute_output_shape(shape))
        self.built = True

    def compute_output_shape(self, shape: Any) -> tuple:
        height, width = (-(-side // PATCH_SIZE) for side in shape[1:3])
        return (shape[0], height, width, self.hidden_dim)

    def call(self, images: Any) -> Any:
        return self.norm(self.projection(pad_grid(images, PATCH_SIZE)))  # (B,h,w,C)


class PatchMerging(layers.Layer):
    """Merges each 2x2 tokens into one of twice the width.

    Call arguments:
        x: (B, h, w, C).

    Returns:
        (B, ceil(h / 2), ceil(w / 2), 2C).
    """

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.norm = layers.LayerNormalization(epsilon=EPSILON, name="norm")

    def build(self, shape: Any) -> None:
        channels = shape[-1]
        self.reduction = dense(2 * channels, "reduction")
        self.reduction.use_bias = False
        self.norm.build((None, None, None, 4 * channels))
        self.reduction.build((None, None, None, 4 * channels))
        self.built = True

    def compute_output_shape(self, shape: Any) -> tuple:
        return (shape[0], -(-shape[1] // 2), -(-shape[2] // 2), 2 * shape[3])

    def call(self, x: Any) -> Any:
        x = pad_grid(x, 2)
        _, height, width, channels = x.shape
        x = ops.reshape(x, (-1, height // 2, 2, width // 2, 2, channels))  # (B,h/2,2,w/2,2,C)
        # The original concatenates the tokens of a square column by column.
        x = ops.transpose(x, (0, 1, 3, 4, 2, 5))  # (B,h/2,w/2,2,2,C)
        x = ops.reshape(x, (-1, height // 2, width // 2, 4 * channels))  # (B,h/2,w/2,4C)
        return self.reduction(self.norm(x))  # (B,h/2,w/2,2C)


class MeanToken(layers.Layer):
    """Puts the mean of the tokens before them: (B, S, C) to (B, 1 + S, C)."""

    def compute_output_shape(self, shape: Any) -> tuple:
        return (shape[0], shape[1] + 1, shape[2])

    def call(self, x: Any) -> Any:
        mean = ops.mean(x, axis=1, keepdims=True)  # (B,1,C)
        return ops.concatenate([mean, x], axis=1)  # (B,1+S,C)
