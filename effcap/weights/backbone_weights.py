"""What --backbone-weights asks for: ImageNet's, none, or those of a file."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from effcap.backbones.backbone import Backbone

IMAGENET, NONE = "imagenet", "none"


def check_backbone_weights(weights: str | None) -> None:
    """FileNotFoundError unless `weights` is one that `load_backbone_weights` takes."""
    if weights not in (None, IMAGENET, NONE) and not Path(weights).exists():
        raise FileNotFoundError(
            f"Expected backbone weights: {IMAGENET}, {NONE}, or a file. Received: {weights!r}"
        )


def load_backbone_weights(backbone: Backbone | None, weights: str | None) -> None:
    """Fills a backbone.

    Args:
        backbone: that of a new captioner; None for an encoder that has none.
        weights: "imagenet", "none" to leave it as it is, or the path of weights; None for
            "imagenet" where the backbone's network is known by name, and "none" otherwise.

    Raises:
        OSError, ValueError: as `load_imagenet`, and for weights without a backbone.
    """
    from effcap.weights.imagenet import load_imagenet

    if backbone is None:
        if weights not in (None, NONE):
            raise ValueError(
                "Expected no backbone weights: the encoder has no backbone. "
                f"Received: backbone_weights={weights!r}"
            )
        return

    if weights is None:
        weights = IMAGENET if isinstance(backbone.network, str) else NONE
    if weights != NONE:
        load_imagenet(backbone, None if weights == IMAGENET else weights)
