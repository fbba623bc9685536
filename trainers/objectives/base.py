"""Base class of training objectives."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, ClassVar

import keras

if TYPE_CHECKING:
    from effcap.captioner import Captioner
    from effcap.trainers.batching.packed import PackedBatches
    from effcap.trainers.data.dataset import CaptionDataset
    from effcap.trainers.options.run import RunOptions


class Objective(ABC):
    """A training objective: its loss, and how an epoch is trained and validated.

    An objective serves one run: `build` prepares it for the captioner, which is then compiled with
    its `loss` and `weighted_metrics`. The loop calls `train_epoch` and `validate` in each epoch.

    Attributes:
        name: value of `RunOptions.objective`.
        loss: loss that the captioner is compiled with.
        weighted_metrics: metrics that the captioner is compiled with.
        metrics: all metrics with a state within the epoch, which checkpoints save.
    """

    name: ClassVar[str]
    loss: keras.losses.Loss
    weighted_metrics: Sequence[keras.metrics.Metric] = ()
    metrics: Sequence[keras.metrics.Metric] = ()

    @classmethod
    @abstractmethod
    def from_options(cls, options: RunOptions, dataset: CaptionDataset) -> Objective:
        """Returns the objective of a run on a training dataset."""

    @abstractmethod
    def build(self, captioner: Captioner) -> None:
        """Creates the loss, the metrics and other models for the captioner.

        Raises:
            ValueError: the captioner does not fit the objective.
        """

    @abstractmethod
    def train_epoch(
        self,
        captioner: Captioner,
        batches: PackedBatches,
        indices: range,
        epoch: int,
        callbacks: Sequence[keras.callbacks.Callback],
    ) -> dict[str, float]:
        """Trains on some batches of an epoch.

        Args:
            captioner: compiled captioner.
            batches: batches whose epoch has been started.
            indices: indices of the batches to train on, in this order.
            epoch: index of the epoch, from 0.
            callbacks: callbacks of the epoch and of each batch.

        Returns:
            The scores of the epoch.
        """

    def validate(self, captioner: Captioner, batches: PackedBatches) -> dict[str, float]:
        """Returns scores on validation batches, with names that begin with "val_"."""
        return {}

    def identity(self) -> dict[str, Any]:
        """Returns options that must be the same when a run is resumed."""
        return {}
