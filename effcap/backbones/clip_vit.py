"""The vision transformers of CLIP (Radford et al. 2021, https://arxiv.org/abs/2103.00020).

They differ from other vision transformers in a layer norm before the first block (`ln_pre`), in
patches without a bias, and in the activation QuickGELU. Models that others trained have GELU.
"""

from __future__ import annotations

from dataclasses import dataclass

import keras

from effcap.backbones.vit import VisionTransformer
from effcap.backbones.vit_sizes import ViTVariant


@dataclass(frozen=True)
class ClipViTVariant(ViTVariant):
    """The sizes of a vision transformer of CLIP."""

    embedding_dim: int = 512
    activation: str = "quick_gelu"
    epsilon: float = 1e-5
    has_pre_norm: bool = True
    has_patch_bias: bool = False


CLIP_VIT_VARIANTS = {
    "vit_b32": ClipViTVariant(patch_size=32),
    "vit_b16": ClipViTVariant(patch_size=16),
    "vit_b32_gelu": ClipViTVariant(patch_size=32, activation="gelu"),
    "vit_b16_gelu": ClipViTVariant(patch_size=16, activation="gelu"),
}


def ClipViT(  # noqa: N802  named as in keras.applications
    variant: ClipViTVariant,
    image_size: tuple[int, int],
    embedding: bool = False,
    name: str = "clip_vit",
) -> keras.Model:
    """Creates a vision transformer of CLIP with random weights.

    Args, returns, raises: as `VisionTransformer`.
    """
    return VisionTransformer(variant, image_size, embedding, name)
