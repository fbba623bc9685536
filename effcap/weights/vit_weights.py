"""Loads published weights of ViT and of BLIP's image towers into a backbone."""

from __future__ import annotations

from os import PathLike
from pathlib import Path
from typing import Any

from effcap.backbones.backbone import Backbone
from effcap.backbones.registry import CLIP_MEAN, CLIP_STDDEV, HALF, find_spec
from effcap.config import read_json
from effcap.weights.tower_file import HUGGING_FACE, TowerKind, read_statistics
from effcap.weights.towers import load_tower
from effcap.weights.vit_names import BLIP_NAMES, VIT_NAMES

# Settings of transformers' classes where config.json records none.
VIT_DEFAULTS = {"hidden_act": "gelu", "num_attention_heads": 12, "layer_norm_eps": 1e-12}
BLIP_DEFAULTS = {**VIT_DEFAULTS, "layer_norm_eps": 1e-5}


def load_vit(backbone: Backbone, path: str | PathLike) -> str:
    """Fills a backbone with the weights of a ViT or BLIP: all of them, or none on an error.

    Args:
        backbone: its network must be a ViT or an image tower of BLIP, known by name.
        path: a folder of Hugging Face's hub, such as that of a `ViTModel`, a
            `VisionEncoderDecoderModel` or a `BlipForConditionalGeneration`; a safetensors file; or
            a file saved by PyTorch, such as the original BLIP's (.pth).

    Returns, raises: as `load_tower`.
    """
    return load_tower(backbone, path, KINDS[find_spec(str(backbone.network)).weights])


def read_vit_settings(path: Path) -> dict[str, Any]:
    """Reads the settings of a ViT, alone or as the encoder of another model.

    Returns:
        "activation", "num_heads", "epsilon", and "mean" and "std" if the preprocessing is recorded.

    Raises:
        ValueError: a file is not JSON.
    """
    config = read_json(path)
    return encoder_settings(config.get("encoder") or config, VIT_DEFAULTS) | read_statistics(path)


def read_blip_settings(path: Path) -> dict[str, Any]:
    """Reads the settings of BLIP's image tower, as `read_vit_settings`.

    Raises:
        ValueError: a file is not JSON.
    """
    config = read_json(path)
    vision = config.get("vision_config") or config
    return encoder_settings(vision, BLIP_DEFAULTS) | read_statistics(path)


def encoder_settings(config: dict[str, Any], defaults: dict[str, Any]) -> dict[str, Any]:
    """Returns transformers' settings of an encoder by our names."""
    config = defaults | config
    return {
        "activation": config["hidden_act"],
        "num_heads": config["num_attention_heads"],
        "epsilon": config["layer_norm_eps"],
    }


KINDS = {
    "vit": TowerKind(
        name="a ViT",
        title="a ViT",
        names=VIT_NAMES,
        files=HUGGING_FACE,
        read_settings=read_vit_settings,
        mean=HALF,
        stddev=HALF,
        undetermined=("activation", "epsilon"),
    ),
    "blip": TowerKind(
        name="BLIP",
        title="BLIP's image tower",
        names=BLIP_NAMES,
        files=HUGGING_FACE,
        read_settings=read_blip_settings,
        mean=CLIP_MEAN,
        stddev=CLIP_STDDEV,
        undetermined=("activation", "epsilon"),
    ),
}
