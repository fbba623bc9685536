"""Selects the weights of a new captioner's backbone: ImageNet, a file, a preset, or none."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from effcap.config import read_json
from effcap.presets import BACKBONE, BEST, CONFIG, WEIGHTS, preset_folder
from effcap.utils.hub import is_hub_name

if TYPE_CHECKING:
    from effcap.backbones.backbone import Backbone

IMAGENET, NONE = "imagenet", "none"
SWIN_SUFFIXES = (".pth", ".th")


def check_backbone_weights(weights: str | None) -> None:
    """Checks that `load_backbone_weights` can find `weights`.

    Raises:
        FileNotFoundError: `weights` is a path that does not exist.
        OSError: `weights` is a preset on the hub that cannot be read.
    """
    if weights not in (None, IMAGENET, NONE) and not Path(local_weights(weights)).exists():
        raise FileNotFoundError(
            f'Expected backbone weights "{IMAGENET}", "{NONE}", a file or a folder. '
            f"Received: {weights!r}"
        )


def local_weights(weights: str) -> str:
    """Returns weights as they are, but for a preset on the hub its folder in the hub's cache."""
    return str(preset_folder(weights)) if is_hub_name(weights) else weights


def adopt_backbone(hparams: Mapping[str, Any], weights: str | None) -> dict[str, Any]:
    """Returns hyperparameters with the network of a preset that holds a backbone alone.

    Args:
        hparams: hyperparameters of a variant.
        weights: as for `load_backbone_weights`. The hyperparameters change for a preset that holds
            a backbone alone, and stay the same for all else. The number of trainable blocks is
            always that of the variant.

    Raises:
        ValueError: config.json of the preset is damaged.
    """
    encoder = hparams["encoder"]
    weights = None if weights is None else local_weights(weights)
    if weights is None or not (Path(weights) / CONFIG).is_file() or BACKBONE not in encoder:
        return dict(hparams)
    settings = read_json(Path(weights) / CONFIG).get(BACKBONE)
    if not isinstance(settings, dict):
        return dict(hparams)
    settings = {**settings, "trainable_blocks": encoder[BACKBONE].get("trainable_blocks", 0)}
    return {**hparams, "encoder": {**encoder, BACKBONE: settings}}


def load_backbone_weights(backbone: Backbone | None, weights: str | None) -> str | None:
    """Fills the backbone of a new captioner.

    Args:
        backbone: None for an encoder without a backbone.
        weights: "imagenet", "none" to keep the random weights, the path of weights, or the folder
            or hf:// name of a preset whose backbone's weights are copied (default: "imagenet" for a
            network known by name, otherwise "none"). CLIP, ViT, BLIP and Swin networks need a path
            or "none".

    Returns:
        A message about what was loaded, if the weights are not those of ImageNet.

    Raises:
        OSError, ValueError: as in `load_imagenet`, `load_clip`, `load_vit`, `load_swin` and
            `copy_preset_backbone`, and for weights without a backbone.
    """
    from effcap.backbones.registry import BACKBONES
    from effcap.backbones.swin import SwinTransformer
    from effcap.conversion.backbone_preset import copy_preset_backbone
    from effcap.weights.clip import load_clip
    from effcap.weights.imagenet import load_imagenet
    from effcap.weights.swin_checkpoint import find_swin
    from effcap.weights.swin_weights import load_swin, swin_backbone
    from effcap.weights.vit_weights import load_vit

    if backbone is None:
        if weights not in (None, NONE):
            raise ValueError(
                "The encoder has no backbone to load weights into. "
                f"Received: backbone_weights={weights!r}"
            )
        return None
    if weights is None:
        weights = IMAGENET if isinstance(backbone.network, str) else NONE
    weights = local_weights(weights)
    if weights == NONE:
        return None
    if weights != IMAGENET and is_preset(weights):
        return copy_preset_backbone(backbone, weights)
    spec = BACKBONES.get(backbone.network) if isinstance(backbone.network, str) else None
    kind = IMAGENET if spec is None else spec.weights
    is_swin = isinstance(backbone.net, SwinTransformer)
    if (kind != IMAGENET or is_swin) and weights == IMAGENET:
        name = backbone.network if isinstance(backbone.network, str) else backbone.net.name
        raise FileNotFoundError(
            f"The weights of {name} are not downloaded. Pass their file or folder with "
            f"--backbone-weights, or start from random weights with --backbone-weights {NONE}"
        )
    if kind == "clip":
        return load_clip(backbone, weights)
    if kind in ("vit", "blip"):
        return load_vit(backbone, weights)
    if is_swin:
        return load_swin(backbone.net, weights)
    if Path(weights).suffix in SWIN_SUFFIXES and (checkpoint := find_swin(weights)) is not None:
        fitting = swin_backbone(checkpoint)
        network = fitting["network"]
        height, width = fitting["image_size"]
        raise ValueError(
            f"{weights} has the weights of a Swin transformer, for --set encoder.backbone.network="
            f"{network if isinstance(network, str) else '...'} --set encoder.backbone.image_size="
            f"[{height},{width}]. Received: {backbone.net.name}"
        )
    load_imagenet(backbone, None if weights == IMAGENET else weights)
    return None


def is_preset(weights: str) -> bool:
    """Returns whether a path is the folder of a preset or of a run.

    A config.json alone is not enough, because Hugging Face's folders have one too.
    """
    folders = (Path(weights), Path(weights) / BEST)
    return any(all((x / name).is_file() for name in (CONFIG, WEIGHTS)) for x in folders)
