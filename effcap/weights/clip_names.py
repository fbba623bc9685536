"""Pairs of our names and the published names of the weights of CLIP's image towers.

Our name is a layer of the network and the path of attributes in it.
"""

from __future__ import annotations

import re

import keras

from effcap.weights.name_pairs import (
    NamePair,
    batch_norm,
    conv2d,
    embedding,
    linear,
    nested,
    norm,
    published_in,
)
from effcap.weights.tower_names import POSITIONS, TowerNames, block_names, has_layer

OPENAI_TEXT = re.compile(
    r"transformer\.resblocks\.\d+\..+|(token_embedding|ln_final)\.(weight|bias)|text\..+"
    r"|positional_embedding|text_projection(\.weight|\.bias)?|attn_mask|logit_scale|logit_bias"
)
# Numbers that OpenAI's TorchScript files hold as tensors.
OPENAI_SIZES = re.compile(r"input_resolution|context_length|vocab_size")
HUGGING_FACE_TEXT = re.compile(r"text_model\..+|text_projection\.weight|logit_scale")


def openai_vit(network: keras.Model) -> list[NamePair]:
    """Returns the pairs of a vision transformer in files of OpenAI and open_clip."""
    pairs = [
        *conv2d("conv1", "conv1"),
        NamePair("embeddings.class_embedding", ("class_embedding",)),
        NamePair(f"embeddings.{POSITIONS}", ("positional_embedding",)),
        *norm("ln_pre", "ln_pre"),
        *norm("ln_post", "ln_post"),
    ]
    if has_layer(network, "projection"):
        pairs.append(NamePair("projection.kernel", ("proj",)))  # (in,out)
    for i, name in enumerate(block_names(network)):
        block = [
            *norm("ln_1", "ln_1"),
            NamePair("attn.c_attn.kernel", ("attn.in_proj_weight",), transposed=True),
            NamePair("attn.c_attn.bias", ("attn.in_proj_bias",)),
            *linear("attn.c_proj", "attn.out_proj"),
            *norm("ln_2", "ln_2"),
            *linear("mlp.c_fc", "mlp.c_fc"),
            *linear("mlp.c_proj", "mlp.c_proj"),
        ]
        pairs += nested(name, f"transformer.resblocks.{i}", block)
    return published_in("visual", pairs)


def hugging_face_vit(network: keras.Model) -> list[NamePair]:
    """Returns the pairs of a vision transformer in Hugging Face's files."""
    pairs = [
        *conv2d("conv1", "embeddings.patch_embedding"),
        NamePair("embeddings.class_embedding", ("embeddings.class_embedding",)),
        *embedding("embeddings.position_embedding", "embeddings.position_embedding"),
        *norm("ln_pre", "pre_layrnorm"),
        *norm("ln_post", "post_layernorm"),
    ]
    for i, name in enumerate(block_names(network)):
        projections = (f"self_attn.{x}_proj" for x in "qkv")
        block = [
            *norm("ln_1", "layer_norm1"),
            *linear("attn.c_attn", *projections),
            *linear("attn.c_proj", "self_attn.out_proj"),
            *norm("ln_2", "layer_norm2"),
            *linear("mlp.c_fc", "mlp.fc1"),
            *linear("mlp.c_proj", "mlp.fc2"),
        ]
        pairs += nested(name, f"encoder.layers.{i}", block)
    pairs = published_in("vision_model", pairs)
    if has_layer(network, "projection"):
        pairs.append(NamePair("projection.kernel", ("visual_projection.weight",), transposed=True))
    return pairs


def openai_resnet(network: keras.Model) -> list[NamePair]:
    """Returns the pairs of a residual network in files of OpenAI and open_clip."""
    pairs: list[NamePair] = []
    for i in (1, 2, 3):
        pairs += [*conv2d(f"conv{i}", f"conv{i}"), *batch_norm(f"bn{i}", f"bn{i}")]
    for name in bottleneck_names(network):
        module = name.replace("_", ".")  # layer1_0 is layer1.0
        for i in (1, 2, 3):
            pairs += conv2d(f"{name}_conv{i}", f"{module}.conv{i}")
            pairs += batch_norm(f"{name}_bn{i}", f"{module}.bn{i}")
        if has_layer(network, f"{name}_downsample_conv"):
            pairs += conv2d(f"{name}_downsample_conv", f"{module}.downsample.0")
            pairs += batch_norm(f"{name}_downsample_bn", f"{module}.downsample.1")
    if has_layer(network, "attnpool"):
        pooling = [
            NamePair(POSITIONS, ("positional_embedding",)),
            *linear("query", "q_proj"),
            *linear("key", "k_proj"),
            *linear("value", "v_proj"),
            *linear("c_proj", "c_proj"),
        ]
        pairs += nested("attnpool", "attnpool", pooling)
    return published_in("visual", pairs)


NAMES = (
    TowerNames(
        "vision transformer of OpenAI or open_clip",
        "ln_pre",
        "visual.class_embedding",
        openai_vit,
        {
            "text tower": OPENAI_TEXT,
            "sizes": OPENAI_SIZES,
            "projection, unused for tokens": re.compile(r"visual\.proj"),
        },
        "open_clip_config.json",
    ),
    TowerNames(
        "residual network of OpenAI or open_clip",
        "layer1_0_conv1",
        "visual.layer1.0.conv1.weight",
        openai_resnet,
        {
            "text tower": OPENAI_TEXT,
            "sizes": OPENAI_SIZES,
            "counters of batches": re.compile(r"visual\..+\.num_batches_tracked"),
            "attention pooling, unused for tokens": re.compile(r"visual\.attnpool\..+"),
        },
        "open_clip_config.json",
    ),
    TowerNames(
        "vision transformer of Hugging Face",
        "ln_pre",
        "vision_model.embeddings.class_embedding",
        hugging_face_vit,
        {
            "text tower": HUGGING_FACE_TEXT,
            "position numbers": re.compile(r"vision_model\.embeddings\.position_ids"),
            "projection, unused for tokens": re.compile(r"visual_projection\.weight"),
        },
        "config.json",
    ),
)


def bottleneck_names(network: keras.Model) -> list[str]:
    """Returns the names of the blocks of a residual network, such as "layer1_0"."""
    matches = (re.fullmatch(r"(layer\d_\d+)_conv1", layer.name) for layer in network.layers)
    return [match.group(1) for match in matches if match]
