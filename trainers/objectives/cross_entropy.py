"""Cross-entropy on the reference captions."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import keras

from effcap.losses import CaptionLoss
from effcap.metrics.token_cross_entropy import TokenCrossEntropy
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
    """

    name = "cross-entropy"

    def __init__(self, label_smoothing: float = 0.0) -> None:
        self.label_smoothing = label_smoothing

    @classmethod
    def from_options(cls, options: RunOptions, dataset: CaptionDataset) -> CrossEntropy:
        """Returns the objective with the label smoothing of the options."""
        return cls(options.training_options.label_smoothing)

    def build(self, captioner: Captioner) -> None:
        """Creates the loss, and the cross-entropy without label smoothing as a metric."""
        self.loss = CaptionLoss(self.label_smoothing)
        self.metrics = self.weighted_metrics = [TokenCrossEntropy()]

    def train_epoch(
        self,
        captioner: Captioner,
        batches: PackedBatches,
        indices: range,
        epoch: int,
        callbacks: Sequence[keras.callbacks.Callback],
    ) -> dict[str, float]:
        """Trains with `fit`; returns loss and cross_entropy."""
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
