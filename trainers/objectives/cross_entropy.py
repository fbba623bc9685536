"""Cross-entropy on the reference captions."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import keras

from effcap.losses import CaptionLoss
from effcap.metrics.token_cross_entropy import TokenCrossEntropy
from effcap.npair import NPairLoss
from effcap.trainers.batching.prefetch import as_dataset
from effcap.trainers.objectives.base import Objective

if TYPE_CHECKING:
    from effcap.captioner import Captioner
    from effcap.trainers.batching.packed import PackedBatches
    from effcap.trainers.data.dataset import CaptionDataset
    from effcap.trainers.options.run import RunOptions


class CrossEntropy(Objective):
    """Mean cross-entropy of the reference captions' tokens (teacher forcing), in nats.

    Args:
        label_smoothing: fraction of the target probability spread over all tokens.
        npair_weight: weight of the n-pair loss of captions and prefixes; see `NPairLoss`. 0 for
            none.
    """

    name = "cross-entropy"

    def __init__(self, label_smoothing: float = 0.0, npair_weight: float = 0.0) -> None:
        self.label_smoothing, self.npair_weight = label_smoothing, npair_weight

    @classmethod
    def from_options(cls, options: RunOptions, dataset: CaptionDataset) -> CrossEntropy:
        """Returns the objective with the label smoothing and n-pair weight of the options."""
        training = options.training_options
        return cls(training.label_smoothing, training.npair_weight)

    def build(self, captioner: Captioner) -> None:
        """Creates the loss, and the cross-entropy without label smoothing as a metric.

        Raises:
            ValueError: there is an n-pair weight and the captioner has no prefix.
        """
        self.loss = CaptionLoss(self.label_smoothing)
        if self.npair_weight:
            if not captioner.decoder.prefix_length:
                raise ValueError(
                    "npair_weight requires decoder.fusion.kind='prefix'. "
                    f"Received: npair_weight={self.npair_weight}"
                )
            self.loss = NPairLoss(self.label_smoothing, self.npair_weight)
        self.metrics = self.weighted_metrics = [TokenCrossEntropy()]

    def train_epoch(
        self,
        captioner: Captioner,
        batches: PackedBatches,
        indices: range,
        epoch: int,
        callbacks: Sequence[keras.callbacks.Callback],
    ) -> dict[str, float]:
        """Trains with `fit`; returns loss, cross_entropy and, with an n-pair weight, npair."""
        history = captioner.fit(
            as_dataset(batches, indices.start, indices.stop),
            initial_epoch=epoch,
            epochs=epoch + 1,
            callbacks=list(callbacks),
            shuffle=False,  # the batches are in a reproducible random order
            verbose=0,
        ).history
        return {name: values[-1] for name, values in history.items()}

    def validate(self, captioner: Captioner, batches: PackedBatches) -> dict[str, float]:
        """Returns val_loss and val_cross_entropy over all real tokens."""
        scores = captioner.evaluate(as_dataset(batches), verbose=0, return_dict=True)
        return {f"val_{name}": value for name, value in scores.items()}
