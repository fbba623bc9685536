"""The epochs of a run, and what comes after each: validation, presets, pictures."""

from __future__ import annotations

import math
from collections.abc import Sequence
from contextlib import ExitStack, closing
from typing import TYPE_CHECKING

import keras

from effcap.trainers.batching.prefetch import feed
from effcap.trainers.engine.callbacks import ProgressBar, Restore, Steps
from effcap.trainers.engine.checkpoint import Checkpoint, Position, finite
from effcap.trainers.engine.interruption import Interruption
from effcap.trainers.engine.run_folder import RunFolder
from effcap.trainers.engine.tensorboard import TensorBoard

if TYPE_CHECKING:
    from effcap.captioner import Captioner
    from effcap.trainers.batching.packed import PackedBatches, Sample
    from effcap.trainers.engine.validation import Scorer


class Loop:
    """Epochs, each one `fit`, and what comes after each: validation, presets, pictures.

    Args:
        captioner: compiled.
        training, validation: batches.
        folder: where scores and presets go.
        checkpoint: of this run.
        position: where the run stands; moves on with it.
        samples: whose captions TensorBoard shows.
        scorer: of the captions of held-out photos; None for no scores.
    """

    def __init__(
        self,
        captioner: Captioner,
        training: PackedBatches,
        validation: PackedBatches | None,
        folder: RunFolder,
        checkpoint: Checkpoint,
        position: Position,
        samples: Sequence[Sample] = (),
        scorer: Scorer | None = None,
    ):
        self.scorer = scorer
        self.captioner, self.training, self.validation = captioner, training, validation
        self.folder, self.checkpoint, self.position = folder, checkpoint, position
        self.board = TensorBoard(
            folder.tensorboard, position, training, samples, writes=folder.writes
        )
        within_epoch = position.steps > position.epoch * len(training)
        self.restore = Restore(checkpoint, within_epoch) if position.steps else None

    def run(
        self,
        steps: int,
        patience: int | None,
        checkpoint_minutes: float,
        checkpoint_steps: int | None,
    ) -> None:
        """Trains until `steps` steps are done, or `patience` epochs were no better."""
        epochs = math.ceil(steps / len(self.training))
        with ExitStack() as stack:
            interruption = stack.enter_context(Interruption())
            stack.enter_context(closing(self.board))
            self.bar = stack.enter_context(
                closing(
                    ProgressBar(
                        self.training, self.position, steps, epochs, shown=self.folder.writes
                    )
                )
            )
            self.steps = Steps(
                self.checkpoint, self.position, interruption, checkpoint_minutes, checkpoint_steps
            )
            try:
                while self.position.epoch < epochs:
                    self._epoch(steps)
                    if patience is not None and self.position.stale >= patience:
                        self.folder.say(f"no better for {patience} epochs: the run ends early")
                        break
            except Exception:
                failure = self.training.failure or (self.validation and self.validation.failure)
                if failure:
                    raise failure from None
                raise
        self.captioner.optimizer.average(self.captioner)
        self.folder.finish(self.position)
        self.checkpoint.remove()

    def _epoch(self, steps: int) -> None:
        epoch, length = self.position.epoch, len(self.training)
        self.training.start_epoch(epoch)
        first = self.position.steps - epoch * length
        last = min(length, steps - epoch * length)
        self.steps.end = epoch * length + last
        callbacks = [*([self.restore] if self.restore else []), self.steps, self.board, self.bar]
        scores = self.fit(first, last, callbacks)
        self.restore = None
        with self.captioner.optimizer.averaged(self.captioner):
            scores = finite({**scores, **self.validate()}, epoch)
            is_best = self.position.end_epoch(scores)
            self.bar.tell("saving")
            self.folder.save(self.captioner, self.position, is_best)
            self.board.end_epoch(self.captioner, scores)
        self.folder.say(self.bar.summary(scores, is_best), self.bar.say)
        for batches in (self.training, self.validation):
            if batches is not None and batches.losses():
                self.folder.say(batches.losses(), self.bar.say)
        self.checkpoint.write(self.captioner, self.position)

    def fit(
        self, first: int, last: int, callbacks: list[keras.callbacks.Callback]
    ) -> dict[str, float]:
        """Trains on batches number `first` to `last` - 1 of the epoch; its scores."""
        epoch = self.position.epoch
        trained = self.captioner.fit(
            feed(self.training, first, last),
            epochs=epoch + 1,
            initial_epoch=epoch,
            callbacks=callbacks,
            shuffle=False,  # the batches are in random order already, one that can be repeated
            verbose=0,
        )
        return {name: values[-1] for name, values in trained.history.items()}

    def validate(self) -> dict[str, float]:
        """Scores on held-out photos; none without them."""
        if self.validation is None:
            return {}
        self.bar.tell("validating")
        found = self.captioner.evaluate(feed(self.validation), verbose=0, return_dict=True)
        scores = {f"val_{name}": value for name, value in found.items()}
        return scores | (self.scorer.scores(self.bar.tell) if self.scorer else {})
