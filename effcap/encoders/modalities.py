"""The encoder of several modalities side by side, as in PlayNTell."""

from __future__ import annotations

import keras

from effcap.encoders.memory import Memory
from effcap.layers.feature_projection import FeatureProjection

MODALITIES = {"audio": 256, "tags": 300, "artist": 10}


class BranchEncoder(keras.layers.Layer):
    """A `FeatureProjection` for each modality: rows of features in, a memory each out.

    Gabbolini et al., "Data-Efficient Playlist Captioning With Musical and Linguistic Knowledge",
    EMNLP 2022.

    Args:
        width: width D of the memories.
        modalities: width of the features of each modality, by name; by default those of a playlist:
            audio (a row per track), tags (a row per distinct tag), artist (one row, the shares of
            the most frequent artists).
        dropout: rate on the projected features.

    Call arguments:
        inputs: features (B, S, C) by modality, S as many as that modality has at most in the batch;
            rows of nothing but zeros are padding. A modality of nothing but padding adds nothing.

    Returns:
        a `Memory` of values (B, S, D) for each modality, in order.

    Raises:
        ValueError: without a modality, or for a width that is none.
    """

    def __init__(
        self,
        width: int,
        modalities: dict[str, int] | None = None,
        dropout: float = 0.1,
        name: str = "branch_encoder",
        **kwargs,
    ):
        super().__init__(name=name, **kwargs)
        modalities = dict(MODALITIES) if modalities is None else dict(modalities)
        if not modalities or not all(
            isinstance(channels, int) and channels > 0 for channels in modalities.values()
        ):
            raise ValueError(
                "Expected modalities, the width of the features of each by name, such as "
                f"{MODALITIES}. Received: modalities={modalities}"
            )
        self.width, self.modalities, self.dropout = width, modalities, dropout
        self.branches = [
            FeatureProjection(width, dropout, name=modality) for modality in modalities
        ]

    @property
    def input_keys(self) -> tuple[str, ...]:
        """Names of the modalities."""
        return tuple(self.modalities)

    @property
    def memory_shapes(self) -> list[tuple[None, None, int]]:
        """(None, None, D) for each modality."""
        return [(None, None, self.width)] * len(self.branches)

    def build(self, shape=None):
        for branch, channels in zip(self.branches, self.modalities.values(), strict=True):
            branch.build((None, None, channels))
        self.built = True

    def call(self, inputs, training=None) -> tuple[Memory, ...]:
        return tuple(
            branch(inputs[modality], training=training)
            for modality, branch in zip(self.modalities, self.branches, strict=True)
        )

    def get_config(self) -> dict:
        # Keras keeps a dict as one of its own, which drags the layer along where it is copied.
        return {
            "width": self.width,
            "modalities": dict(self.modalities),
            "dropout": self.dropout,
        }
