"""Reads the hyperparameters of the original BLIP (Li et al. 2022) from its `.pth` file.

https://github.com/salesforce/BLIP. All sizes but the numbers of heads are those of the tensors.
"""

from __future__ import annotations

import math
import re
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

from effcap.backbones.vit_sizes import BLIP_VARIANTS
from effcap.weights.captioner_config import REPETITION, CaptionerConfig, backbone_arguments
from effcap.weights.gpt2.hugging_face import open_torch
from effcap.weights.gpt2.stored_tensor import Shape, StoredTensor
from effcap.weights.torch_file import read_torch

SALESFORCE = "salesforce-blip"
KEY, DECODER_KEY = "visual_encoder.pos_embed", "text_decoder.bert.embeddings.word_embeddings.weight"
EPSILON = 1e-6  # of the image tower
HEAD_DIM = 64  # in all published models
# That of the original's evaluation on COCO, without repeated trigrams.
SAMPLER = {
    "kind": "beam",
    "num_beams": 3,
    "length_penalty": 1.0,
    "min_new_tokens": 4,
    "max_new_tokens": 19,
    "repetition_penalty": 1.0,
    "no_repeat_ngram_size": 3,
}


def find_salesforce_blip(path: Path) -> dict[str, StoredTensor] | None:
    """Returns the tensors of a file of the original BLIP, with their names in it; or None.

    Raises:
        ValueError: the file is damaged.
    """
    prefix = tensor_prefix(read_torch(path))
    return None if prefix is None else {x.name: x for x in open_torch(path)}


def tensor_prefix(names: Collection[str]) -> str | None:
    """Returns what precedes the names of BLIP's tensors, such as "model."; None without BLIP."""
    for name in names:
        if name == KEY or name.endswith(f".{KEY}"):
            prefix = name.removesuffix(KEY)
            return prefix if prefix + DECODER_KEY in names else None
    return None


def salesforce_config(path: Path, tensors: Mapping[str, StoredTensor]) -> CaptionerConfig:
    """Returns the hyperparameters of the captioner that the tensors fit.

    Args:
        path: the file.
        tensors: from `find_salesforce_blip`, without the prefix of their names.

    Raises:
        ValueError: a tensor that defines a size is missing or has another number of axes.
    """

    def shape(name: str, num_axes: int) -> Shape:
        found = tensors[name].shape if name in tensors else None
        if found is None or len(found) != num_axes:
            raise ValueError(
                f"Expected a tensor {name} of {num_axes} axes in {path}. Received: {found}"
            )
        return found

    def count(pattern: str) -> int:
        matches = (re.fullmatch(rf"{pattern}\.(\d+)\..+", name) for name in tensors)
        return 1 + max((int(match[1]) for match in matches if match), default=-1)

    _, num_positions, hidden_dim = shape(KEY, 3)
    patch = shape("visual_encoder.patch_embed.proj.weight", 4)[-1]
    grid = math.isqrt(max(0, num_positions - 1))
    if grid < 1 or grid * grid != num_positions - 1:
        raise ValueError(
            f"Expected {KEY} of {path} with one position more than a square grid. "
            f"Received: {num_positions} positions"
        )
    sizes = {
        "patch_size": patch,
        "hidden_dim": hidden_dim,
        "num_layers": count(r"visual_encoder\.blocks"),
        "num_heads": max(1, hidden_dim // HEAD_DIM),
        "activation": "gelu",
        "epsilon": EPSILON,
        "intermediate_dim": shape("visual_encoder.blocks.0.mlp.fc1.weight", 2)[0],
        "qkv_bias": True,
    }
    backbone = backbone_arguments(sizes, (grid * patch, grid * patch), BLIP_VARIANTS)
    vocabulary_size, text_dim = shape(DECODER_KEY, 2)
    bert = "text_decoder.bert"
    decoder: dict[str, Any] = {
        "kind": "bert",
        "vocabulary_size": vocabulary_size,
        "max_sequence_length": shape(f"{bert}.embeddings.position_embeddings.weight", 2)[0],
        "hidden_dim": text_dim,
        "num_heads": max(1, text_dim // HEAD_DIM),
        "num_layers": count(r"text_decoder\.bert\.encoder\.layer"),
        "intermediate_dim": shape(f"{bert}.encoder.layer.0.intermediate.dense.weight", 2)[0],
        "dropout": 0.1,
        "attention_dropout": 0.1,
    }
    length = decoder["max_sequence_length"]
    longest = min(SAMPLER["max_new_tokens"], length)
    least = min(SAMPLER["min_new_tokens"], longest)
    sampler = {**SAMPLER, "max_new_tokens": longest, "min_new_tokens": least}
    hparams = {
        "encoder": {"kind": "backbone", "backbone": {**backbone, "resample": "bicubic"}},
        "decoder": decoder,
        "sampler": sampler,
    }
    assumed = {
        "encoder.backbone.sizes.num_heads": sizes["num_heads"],
        "decoder.num_heads": decoder["num_heads"],
        f"sampler.{REPETITION}": SAMPLER[REPETITION],
    }
    return CaptionerConfig(path, SALESFORCE, hparams, None, None, [], assumed)
