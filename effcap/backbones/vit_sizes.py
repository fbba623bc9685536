"""Sizes of the vision transformers known by name. Imports no Keras."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class ViTVariant:
    """The sizes of a vision transformer.

    Attributes:
        patch_size: pixels per side of a patch.
        hidden_dim: width D.
        num_layers: number of blocks L.
        num_heads: number of heads H of each block.
        embedding_dim: width E of the projected image vector. None for a network without one.
        activation: key of `effcap.layers.transformer.ACTIVATIONS`.
        epsilon: epsilon of the layer norms.
        intermediate_dim: width of the MLPs' hidden layers. None takes 4*D.
        qkv_bias: whether queries, keys and values have biases.
        has_pre_norm: whether there is a layer norm before the first block, as in CLIP.
        has_patch_bias: whether the embedding of patches has a bias.
    """

    patch_size: int
    hidden_dim: int = 768
    num_layers: int = 12
    num_heads: int = 12
    embedding_dim: int | None = None
    activation: str = "gelu"
    epsilon: float = 1e-12
    intermediate_dim: int | None = None
    qkv_bias: bool = True
    has_pre_norm: bool = False
    has_patch_bias: bool = True


VIT_VARIANTS = {"vit_b16": ViTVariant(patch_size=16)}
# The layer norms of transformers' BLIP. The original's epsilon is 1e-6.
BLIP_VARIANTS = {
    "blip_vit_b16": ViTVariant(patch_size=16, epsilon=1e-5),
    "blip_vit_l16": ViTVariant(
        patch_size=16, hidden_dim=1024, num_layers=24, num_heads=16, epsilon=1e-5
    ),
}
