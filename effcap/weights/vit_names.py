"""Pairs of our names and the published names of the weights of ViT and of BLIP's image towers.

Our name is a layer of the network and the path of attributes in it. The published names start
inside the image tower, such as `encoder` in transformers' `VisionEncoderDecoderModel`.
"""

from __future__ import annotations

import re

import keras

from effcap.weights.name_pairs import NamePair, conv2d, linear, nested, norm, published_in
from effcap.weights.tower_names import POSITIONS, TowerNames, block_names

VIT_BLOCK = [
    *norm("ln_1", "layernorm_before"),
    *linear("attn.c_attn", *(f"attention.attention.{x}" for x in ("query", "key", "value"))),
    *linear("attn.c_proj", "attention.output.dense"),
    *norm("ln_2", "layernorm_after"),
    *linear("mlp.c_fc", "intermediate.dense"),
    *linear("mlp.c_proj", "output.dense"),
]
BLIP_BLOCK = [
    *norm("ln_1", "layer_norm1"),
    *linear("attn.c_attn", "self_attn.qkv"),
    *linear("attn.c_proj", "self_attn.projection"),
    *norm("ln_2", "layer_norm2"),
    *linear("mlp.c_fc", "mlp.fc1"),
    *linear("mlp.c_proj", "mlp.fc2"),
]
SALESFORCE_BLOCK = [
    *norm("ln_1", "norm1"),
    *linear("attn.c_attn", "attn.qkv"),
    *linear("attn.c_proj", "attn.proj"),
    *norm("ln_2", "norm2"),
    *linear("mlp.c_fc", "mlp.fc1"),
    *linear("mlp.c_proj", "mlp.fc2"),
]


def hugging_face_vit(network: keras.Model) -> list[NamePair]:
    """Returns the pairs of transformers' `ViTModel`."""
    first = network.get_layer(block_names(network)[0])
    block = [pair for pair in VIT_BLOCK if first.qkv_bias or pair.ours != "attn.c_attn.bias"]
    return [
        *conv2d("conv1", "embeddings.patch_embeddings.projection", bias=True),
        *embeddings("embeddings.cls_token", "embeddings.position_embeddings"),
        *blocks(network, "encoder.layer", block),
        *norm("ln_post", "layernorm"),
    ]


def hugging_face_blip(network: keras.Model) -> list[NamePair]:
    """Returns the pairs of transformers' `BlipVisionModel`."""
    return [
        *conv2d("conv1", "embeddings.patch_embedding", bias=True),
        *embeddings("embeddings.class_embedding", "embeddings.position_embedding"),
        *blocks(network, "encoder.layers", BLIP_BLOCK),
        *norm("ln_post", "post_layernorm"),
    ]


def salesforce_blip(network: keras.Model) -> list[NamePair]:
    """Returns the pairs of the original BLIP."""
    pairs = [
        *conv2d("conv1", "patch_embed.proj", bias=True),
        *embeddings("cls_token", "pos_embed"),
        *blocks(network, "blocks", SALESFORCE_BLOCK),
        *norm("ln_post", "norm"),
    ]
    return published_in("visual_encoder", pairs)


def embeddings(class_token: str, positions: str) -> list[NamePair]:
    """Returns the pairs of the class token (1, 1, D) and the positions (1, S, D)."""
    return [
        NamePair("embeddings.class_embedding", (class_token,), unit_axes=2),
        NamePair(f"embeddings.{POSITIONS}", (positions,), unit_axes=1),
    ]


def blocks(network: keras.Model, module: str, block: list[NamePair]) -> list[NamePair]:
    """Returns the pairs of all blocks, which the published `module` contains by number."""
    return [
        pair
        for i, name in enumerate(block_names(network))
        for pair in nested(name, f"{module}.{i}", block)
    ]


VIT_NAMES = (
    TowerNames(
        "ViT of Hugging Face",
        "ln_post",
        "embeddings.cls_token",
        hugging_face_vit,
        {"pooler, unused": re.compile(r"pooler\.dense\.(weight|bias)")},
        "config.json",
    ),
)
BLIP_NAMES = (
    TowerNames(
        "BLIP of Hugging Face",
        "ln_post",
        "embeddings.patch_embedding.bias",
        hugging_face_blip,
        {},
        "config.json",
    ),
    TowerNames(
        "BLIP of its authors",
        "ln_post",
        "visual_encoder.cls_token",
        salesforce_blip,
        {"outside visual_encoder.*": re.compile(r"(?!visual_encoder\.).+")},
        "config.json",
        original={"activation": "gelu", "epsilon": 1e-6},
    ),
)
