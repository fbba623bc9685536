"""Tiny vision transformers and captioners of transformers, and files of their weights."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import keras
import numpy as np
from safetensors.numpy import save_file

from effcap.backbones.registry import STANDARDIZE_CLIP, STANDARDIZE_HALF, vit_spec
from effcap.backbones.vit_sizes import ViTVariant
from effcap.weights.name_pairs import NamePair, find_variable
from helpers.torch_writer import write_state_dict

DATA = Path(__file__).resolve().parents[1] / "data"
VIT, BLIP = "tiny_vit", "tiny_blip"
SIZES = {"patch_size": 8, "hidden_dim": 16, "num_layers": 2, "num_heads": 4}
# The sizes in tests/data/make_vit_reference.py.
SPECS = {
    VIT: vit_spec(VIT, ViTVariant(**SIZES), 32, STANDARDIZE_HALF, "vit"),
    BLIP: vit_spec(BLIP, ViTVariant(**SIZES, epsilon=1e-5), 32, STANDARDIZE_CLIP, "blip"),
}
VISION_CONFIG = {"hidden_act": "gelu", "num_attention_heads": 4}
CONFIGS = {
    VIT: {"model_type": "vit", **VISION_CONFIG, "layer_norm_eps": 1e-12},
    BLIP: {"model_type": "blip", "vision_config": {**VISION_CONFIG, "layer_norm_eps": 1e-5}},
}
STATISTICS = {
    VIT: {"image_mean": [0.5] * 3, "image_std": [0.5] * 3},
    BLIP: {
        "image_mean": [0.48145466, 0.4578275, 0.40821073],
        "image_std": [0.26862954, 0.26130258, 0.27577711],
    },
}
# Names of the original BLIP's image tower for those of transformers.
SALESFORCE = (
    (r"embeddings\.class_embedding", "cls_token"),
    (r"embeddings\.position_embedding", "pos_embed"),
    (r"embeddings\.patch_embedding", "patch_embed.proj"),
    (r"encoder\.layers", "blocks"),
    (r"self_attn\.projection", "attn.proj"),
    (r"self_attn", "attn"),
    (r"layer_norm", "norm"),
    (r"post_layernorm", "norm"),
)


@dataclass(frozen=True)
class Reference:
    """The weights and outputs of a model of transformers.

    Attributes:
        weights: tensors by the names in its files.
        arrays: inputs and outputs, as in the script that wrote them.
    """

    weights: dict[str, np.ndarray]
    arrays: dict[str, np.ndarray]


@cache
def read_reference(file: str, model: str) -> Reference:
    """Reads the arrays of a model in tests/data/FILE_reference.npz."""
    with np.load(DATA / f"{file}_reference.npz") as arrays:
        named = {
            key.partition("/")[2]: arrays[key] for key in arrays if key.startswith(f"{model}/")
        }
    prefix = "weights/"
    weights = {key[len(prefix) :]: named.pop(key) for key in [*named] if key.startswith(prefix)}
    return Reference(weights, named)


def salesforce_names(weights: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Returns the weights of a `BlipVisionModel` by the names of the original BLIP."""
    renamed = {}
    for name, array in weights.items():
        for pattern, replacement in SALESFORCE:
            name = re.sub(pattern, replacement, name)
        renamed[f"visual_encoder.{name}"] = array
    return renamed


def write_folder(
    folder: Path, weights: Mapping[str, np.ndarray], config: Any, statistics: Any = None
) -> Path:
    """Writes a folder of Hugging Face's hub with safetensors, and returns it."""
    folder.mkdir(exist_ok=True)
    (folder / "config.json").write_text(json.dumps(config))
    if statistics is not None:
        (folder / "preprocessor_config.json").write_text(json.dumps(statistics))
    arrays = {name: np.ascontiguousarray(array) for name, array in weights.items()}
    save_file(arrays, folder / "model.safetensors")
    return folder


def write_torch(path: Path, weights: Mapping[str, np.ndarray]) -> Path:
    """Writes a state dict as torch.save does, and returns its path."""
    path.write_bytes(write_state_dict(dict(weights)))
    return path


def assign(
    layer: keras.layers.Layer, pairs: Iterable[NamePair], weights: Mapping[str, np.ndarray]
) -> set[str]:
    """Fills variables of a layer, and returns the names of the tensors that they are from."""
    used: set[str] = set()
    for pair in pairs:
        find_variable(layer, pair.ours).assign(pair.read(weights))
        used |= set(pair.theirs)
    return used


def published_shapes(model: str) -> tuple[dict[str, list[int]], dict[str, int]]:
    """Reads the tensors of a model in tests/data/transformers_shapes.json.

    Returns:
        The shapes by name, of the first layer only, and the number of layers by the module that
        contains them.
    """
    shapes, layers = {}, {}
    contents = json.loads((DATA / "transformers_shapes.json").read_text(encoding="utf-8"))
    for name, shape in contents[model].items():
        match = re.fullmatch(r"(.+)\.\{0-(\d+)\}(.+)", name)
        if match:
            layers[match.group(1)] = int(match.group(2)) + 1
            name = f"{match.group(1)}.0{match.group(3)}"
        shapes[name] = tuple(shape)
    return shapes, layers
