"""The files and settings of published CLIP models."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from effcap.backbones.registry import CLIP_MEAN, CLIP_STDDEV
from effcap.config import read_json
from effcap.weights.clip_names import NAMES
from effcap.weights.tower_file import HUGGING_FACE, TowerKind, read_transformers_settings

# Settings of transformers' class where config.json records none.
DEFAULTS = {"hidden_act": "quick_gelu", "num_attention_heads": 12, "layer_norm_eps": 1e-5}
OPEN_CLIP = ("open_clip_model.safetensors", "open_clip_pytorch_model.bin")


def read_settings(path: Path) -> dict[str, Any]:
    """Reads what Hugging Face or open_clip recorded of an image tower and no tensor determines.

    Returns:
        "activation", "head_dim" or "num_heads", "epsilon", "mean" and "std", as far as recorded;
        what Hugging Face's class or open_clip takes where nothing is recorded.

    Raises:
        ValueError: the file is not JSON.
    """
    if path.name == "config.json":
        return read_transformers_settings(path, "vision_config", DEFAULTS)
    contents = read_json(path)
    model, preprocessing = contents.get("model_cfg", {}), contents.get("preprocess_cfg", {})
    settings = {
        "activation": "quick_gelu" if model.get("quick_gelu") else "gelu",
        "head_dim": model.get("vision_cfg", {}).get("head_width", 64),
    }
    return settings | {key: preprocessing[key] for key in ("mean", "std") if key in preprocessing}


CLIP = TowerKind(
    name="CLIP",
    title="CLIP's image tower",
    names=NAMES,
    files=(*OPEN_CLIP, *HUGGING_FACE),
    read_settings=read_settings,
    mean=CLIP_MEAN,
    stddev=CLIP_STDDEV,
    hints={"activation": ". Networks whose names end in _gelu have gelu"},
    antialias=True,
)
