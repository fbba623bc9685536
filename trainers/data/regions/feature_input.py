"""The input that an encoder takes features of photos as, and the shape it takes."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from effcap.caption_generator import CaptionGenerator
    from effcap.captioner import Captioner

REGIONS, FEATURES = "regions", "features"  # names of encoder inputs


class FeatureInput(NamedTuple):
    """The encoder input that takes features of photos.

    Attributes:
        name: name of the input: "regions" of any number, or "features" of a backbone.
        feature_dim: width C.
        num_positions: number of positions S; None if it differs from photo to photo.
    """

    name: str
    feature_dim: int
    num_positions: int | None = None


def feature_input(captioner: CaptionGenerator) -> FeatureInput:
    """Returns the input of a captioner that takes features of photos.

    Raises:
        ValueError: the captioner takes other inputs.
    """
    encoder = captioner.encoder
    if REGIONS in encoder.input_keys:
        return FeatureInput(REGIONS, encoder.feature_dim)
    if FEATURES in encoder.input_keys:
        num_positions, feature_dim = encoder.backbone.feature_shape
        return FeatureInput(FEATURES, feature_dim, num_positions)
    raise ValueError(
        "Expected a captioner of region features or of photos, such as the variants visualgpt and "
        f"clipcap-mlp. Received: a captioner of {' and '.join(encoder.input_keys)}"
    )


def check_frozen_backbone(captioner: Captioner) -> None:
    """Checks that a captioner that trains on a backbone's features does not train the backbone.

    Raises:
        ValueError: it does.
    """
    backbone = getattr(captioner.encoder, "backbone", None)
    if backbone is not None and backbone.trainable_weights:
        raise ValueError(
            "Expected a frozen backbone, because training on its features cannot change it. "
            f"Received: trainable_blocks={backbone.trainable_blocks!r}; use --set "
            "encoder.backbone.trainable_blocks=0"
        )
