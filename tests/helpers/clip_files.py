"""Tiny CLIP networks, and files of their weights in the published formats."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from safetensors.numpy import save_file

from effcap.backbones.clip_resnet import ClipResNet, ClipResNetVariant
from effcap.backbones.clip_vit import ClipViT, ClipViTVariant
from effcap.backbones.registry import clip_spec
from effcap.weights.torch_file import read_torch
from helpers.torch_writer import write_script, write_state_dict

DATA = Path(__file__).resolve().parents[1] / "data"
VIT, VIT_GELU, RESNET = "clip_tiny_vit", "clip_tiny_vit_gelu", "clip_tiny_resnet"
# The sizes in tests/data/make_clip_reference.py.
SPECS = {
    VIT: clip_spec(ClipViT, ClipViTVariant(8, 32, 2, 4, 24), 32),
    VIT_GELU: clip_spec(ClipViT, ClipViTVariant(8, 32, 2, 4, 24, "gelu"), 32),
    RESNET: clip_spec(ClipResNet, ClipResNetVariant((1, 2, 1, 1), 4, 24), 64),
}
HUGGING_FACE = {
    "model_type": "clip",
    "vision_config": {
        "hidden_act": "quick_gelu",
        "layer_norm_eps": 1e-5,
        "num_attention_heads": 4,
        "patch_size": 8,
    },
}
OPEN_CLIP = {
    "model_cfg": {"quick_gelu": True, "vision_cfg": {"head_width": 8, "patch_size": 8}},
    "preprocess_cfg": {
        "mean": [0.48145466, 0.4578275, 0.40821073],
        "std": [0.26862954, 0.26130258, 0.27577711],
    },
}


@dataclass(frozen=True)
class Reference:
    """A published implementation's weights and outputs.

    Attributes:
        network: name of the network in `SPECS`.
        weights: state dict of the whole model, text tower included.
        arrays: "images", "embedding" and more, as in make_clip_reference.py.
    """

    network: str
    weights: dict[str, np.ndarray]
    arrays: dict[str, np.ndarray]


def read_reference(name: str) -> Reference:
    """Reads a reference, "hugging_face", "resnet" or "script"."""
    with np.load(DATA / f"clip_{name}.npz") as file:
        arrays = {key: file[key] for key in file.files}
    prefix = "weights/"
    weights = {key[len(prefix) :]: arrays.pop(key) for key in [*arrays] if key.startswith(prefix)}
    if not weights:
        weights = dict(read_torch(DATA / f"clip_{name}.pt"))
    return Reference(RESNET if name == "resnet" else VIT, weights, arrays)


def write_weights(form: str, folder: Path, weights: dict[str, np.ndarray]) -> Path:
    """Writes weights in a published format; returns the path to load them from.

    Args:
        form: "hugging_face", "hugging_face_bin", "open_clip", "open_clip_bin", each a folder;
            "state_dict", "checkpoint", "script" or "safetensors", each a file.
        folder: empty folder.
        weights: state dict.
    """
    folder.mkdir(exist_ok=True)
    if form in ("hugging_face", "hugging_face_bin"):
        (folder / "config.json").write_text(json.dumps(HUGGING_FACE))
    if form in ("open_clip", "open_clip_bin"):
        (folder / "open_clip_config.json").write_text(json.dumps(OPEN_CLIP))
    path = folder / {
        "hugging_face": "model.safetensors",
        "hugging_face_bin": "pytorch_model.bin",
        "open_clip": "open_clip_model.safetensors",
        "open_clip_bin": "open_clip_pytorch_model.bin",
        "safetensors": "clip.safetensors",
    }.get(form, "clip.pt")
    if path.suffix == ".safetensors":
        save_file({name: np.ascontiguousarray(x) for name, x in weights.items()}, path)
    elif form == "script":
        path.write_bytes(write_script(weights))
    elif form == "checkpoint":
        checkpoint = {f"state_dict.module.{name}": x for name, x in weights.items()}
        path.write_bytes(write_state_dict(checkpoint | {"optimizer.state.0": np.float32([1])}))
    else:
        path.write_bytes(write_state_dict(weights))
    return path if form in ("state_dict", "checkpoint", "script", "safetensors") else folder
