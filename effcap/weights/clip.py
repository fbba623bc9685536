"""Loads published weights of CLIP's image towers into a backbone."""

from __future__ import annotations

from os import PathLike

from effcap.backbones.backbone import Backbone
from effcap.weights.clip_files import CLIP
from effcap.weights.towers import load_tower


def load_clip(backbone: Backbone, path: str | PathLike) -> str:
    """Fills a backbone with the weights of a CLIP model: all of them, or none on an error.

    Args:
        backbone: its network must be a CLIP model known by name.
        path: OpenAI's TorchScript file (.pt), a state dict or training checkpoint saved by
            PyTorch (.pt, .pth, .bin), a safetensors file, or a folder of Hugging Face's hub.

    Returns, raises: as `load_tower`.
    """
    return load_tower(backbone, path, CLIP)
