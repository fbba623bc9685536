"""The loop of a self-critical run: each step samples with the weights of the step before."""

from __future__ import annotations

from contextlib import closing
from typing import Any

import keras

from effcap.trainers.batching.prefetch import ahead
from effcap.trainers.engine.loop import Loop
from effcap.trainers.objectives.scst import SelfCritic


class ScstLoop(Loop):
    """`Loop` whose epochs are made of `SelfCritic`'s batches.

    Args:
        critic: makes them.
        arguments: of `Loop`.
    """

    def __init__(self, *arguments: Any, critic: SelfCritic):
        super().__init__(*arguments)
        self.critic = critic

    def fit(
        self, first: int, last: int, callbacks: list[keras.callbacks.Callback]
    ) -> dict[str, float]:
        """Trains on batches number `first` to `last` - 1, without `keras.Model.fit`: it would
        prepare batches ahead, and on JAX hold the weights back until the epoch ends."""
        epoch = self.position.epoch
        self.captioner.reset_metrics()
        for metric in self.critic.metrics:
            metric.reset_state()
        every = keras.callbacks.CallbackList(callbacks, model=self.captioner)
        every.on_epoch_begin(epoch)
        logs: dict[str, float] = {}
        with closing(ahead(self.training, first, last)) as batches:
            for number, batch in enumerate(batches):
                every.on_train_batch_begin(number)
                own = self.critic.batch(batch, self.position.steps)
                trained = self.captioner.train_on_batch(*own, return_dict=True)
                logs = {name: float(value) for name, value in trained.items()}
                logs |= {m.name: float(m.result()) for m in self.critic.metrics}
                every.on_train_batch_end(number, logs)
        every.on_epoch_end(epoch, logs)
        return logs

    def validate(self) -> dict[str, float]:
        """Scores of captions of held-out photos: what is trained for, and not cross-entropy."""
        return self.scorer.scores(self.bar.tell) if self.scorer else {}
