"""Selects the weights of a new captioner's backbone: ImageNet, a file, or none."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from effcap.backbones.backbone import Backbone

IMAGENET, NONE = "imagenet", "none"


def check_backbone_weights(weights: str | None) -> None:
    """Checks that `load_backbone_weights` can find `weights`.

    Raises:
        FileNotFoundError: `weights` is a path that does not exist.
    """
    if weights not in (None, IMAGENET, NONE) and not Path(weights).exists():
        raise FileNotFoundError(
            f'Expected backbone weights "{IMAGENET}", "{NONE}", or a file. Received: {weights!r}'
        )


def load_backbone_weights(backbone: Backbone | None, weights: str | None) -> None:
    """Fills the backbone of a new captioner.

    Args:
        backbone: None for an encoder without a backbone.
        weights: "imagenet", "none" to keep the random weights, or the path of weights (default:
            "imagenet" for a network known by name, otherwise "none").

    Raises:
        OSError, ValueError: as in `load_imagenet`, and for weights without a backbone.
    """
    from effcap.weights.imagenet import load_imagenet

    if backbone is None:
        if weights not in (None, NONE):
            raise ValueError(
                "The encoder has no backbone to load weights into. "
                f"Received: backbone_weights={weights!r}"
            )
        return
    if weights is None:
        weights = IMAGENET if isinstance(backbone.network, str) else NONE
    if weights != NONE:
        load_imagenet(backbone, None if weights == IMAGENET else weights)
