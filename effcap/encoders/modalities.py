"""Encoder of several modalities, as in PlayNTell."""

from __future__ import annotations

from typing import Any

import keras

from effcap.encoders.memory import Memory
from effcap.layers.feature_projection import FeatureProjection

MODALITIES = {"audio": 256, "tags": 300, "artist": 10}


class ModalityEncoder(keras.layers.Layer):
    """A `FeatureProjection` and a memory for each modality.

    Source: Gabbolini et al., "Data-Efficient Playlist Captioning With Musical and Linguistic
    Knowledge", EMNLP 2022.

    Args:
        hidden_dim: width D of the memories.
        modalities: width C of the features of each modality, by name. Default those of a playlist:
            audio (a row per track), tags (a row per distinct tag), artist (one row, the fractions
            of tracks by the most frequent artists).
        dropout: rate on the projected features. Default 0.1.

    Call arguments:
        inputs: features (B, S, C) by modality; rows of zeros are padding. A modality with nothing
            but padding has no effect.

    Returns:
        A tuple with one `Memory` of values (B, S, D) for each modality, in order.

    Raises:
        ValueError: there is no modality, or a width is not a positive integer.
    """

    def __init__(
        self,
        hidden_dim: int,
        modalities: dict[str, int] | None = None,
        dropout: float = 0.1,
        name: str = "modality_encoder",
        **kwargs: Any,
    ):
        super().__init__(name=name, **kwargs)
        modalities = dict(MODALITIES) if modalities is None else dict(modalities)
        if not modalities or not all(
            isinstance(feature_dim, int) and feature_dim > 0 for feature_dim in modalities.values()
        ):
            raise ValueError(
                f"Expected modalities as a dict of feature widths, such as {MODALITIES}. "
                f"Received: modalities={modalities}"
            )
        self.hidden_dim, self.modalities, self.dropout = hidden_dim, modalities, dropout
        self.projections = [
            FeatureProjection(hidden_dim, dropout, name=modality) for modality in modalities
        ]

    @property
    def input_keys(self) -> tuple[str, ...]:
        """Names of the modalities."""
        return tuple(self.modalities)

    @property
    def memory_shapes(self) -> list[tuple[None, None, int]]:
        """Shapes of the memories: (None, None, D) for each modality."""
        return [(None, None, self.hidden_dim)] * len(self.projections)

    def build(self, shape: Any = None) -> None:
        for projection, feature_dim in zip(self.projections, self.modalities.values(), strict=True):
            projection.build((None, None, feature_dim))
        self.built = True

    def call(self, inputs: dict, training: bool | None = None) -> tuple[Memory, ...]:
        return tuple(
            Memory(*projection(inputs[modality], training=training))
            for modality, projection in zip(self.modalities, self.projections, strict=True)
        )

    def get_config(self) -> dict:
        return {
            "hidden_dim": self.hidden_dim,
            # A plain dict: Keras's tracked one references the layer and is copied with it.
            "modalities": dict(self.modalities),
            "dropout": self.dropout,
        }
