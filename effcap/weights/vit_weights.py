"""Loads published weights of ViT and of BLIP's image towers into a backbone."""

from __future__ import annotations

from functools import partial
from os import PathLike

from effcap.backbones.backbone import Backbone
from effcap.backbones.registry import CLIP_MEAN, CLIP_STDDEV, HALF, find_spec
from effcap.weights.tower_file import HUGGING_FACE, TowerKind, read_transformers_settings
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


KINDS = {
    "vit": TowerKind(
        name="a ViT",
        title="a ViT",
        names=VIT_NAMES,
        files=HUGGING_FACE,
        read_settings=partial(read_transformers_settings, section="encoder", defaults=VIT_DEFAULTS),
        mean=HALF,
        stddev=HALF,
        undetermined=("activation", "epsilon"),
    ),
    "blip": TowerKind(
        name="BLIP",
        title="BLIP's image tower",
        names=BLIP_NAMES,
        files=HUGGING_FACE,
        read_settings=partial(
            read_transformers_settings, section="vision_config", defaults=BLIP_DEFAULTS
        ),
        mean=CLIP_MEAN,
        stddev=CLIP_STDDEV,
        undetermined=("activation", "epsilon"),
    ),
}
