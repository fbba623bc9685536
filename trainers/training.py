"""Batches into a trained captioner, whatever the data came from."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from contextlib import ExitStack, closing
from pathlib import Path
from typing import TYPE_CHECKING, Any

import keras

from effcap.loss import CaptionLoss
from effcap.metrics import TokenCrossEntropy
from effcap.trainers.callbacks import ProgressBar, Restore, Steps
from effcap.trainers.checkpoint import Checkpoint, Position, finite
from effcap.trainers.feed import feed
from effcap.trainers.interruption import Interruption
from effcap.trainers.optimizer import make_optimizer
from effcap.trainers.options import TrainingOptions
from effcap.trainers.run_folder import RunFolder
from effcap.trainers.tensorboard import TensorBoard

if TYPE_CHECKING:
    from effcap.captioner import Captioner
    from effcap.photos import Photo
    from effcap.trainers.batches import CaptionBatches

MONITOR = "val_cross_entropy"  # what the best preset has least of


def train(
    captioner: Captioner,
    training: CaptionBatches,
    validation: CaptionBatches | None,
    out: Path,
    options: TrainingOptions,
    record: Mapping[str, Any] | None = None,
    samples: Sequence[Photo] = (),
    *,
    resume: bool = False,
    checkpoint_minutes: float = 10.0,
    checkpoint_steps: int | None = None,
) -> list[dict[str, float]]:
    """Trains with cross-entropy and keeps what comes of it in the run folder `out`.

    A run that was stopped, however and wherever, goes on from its last checkpoint and ends with the
    weights that it would have ended with; on a CPU to the bit.

    Args:
        captioner: what to train.
        training, validation: batches; without validation data the best preset is the last one.
        out: run folder, see `effcap.trainers.run_folder`.
        options: how to train.
        record: how the run came about, for run.json and the presets' training.json.
        samples: photos whose captions TensorBoard shows after each epoch.
        resume: go on from the checkpoint in `out`, where there is one.
        checkpoint_minutes: between two checkpoints; there is one after each epoch besides.
        checkpoint_steps: between two checkpoints, in place of the minutes.

    Returns:
        The scores of each epoch: loss, cross_entropy, val_loss, val_cross_entropy.

    Raises:
        UnreadablePhoto: for a photo that has become unreadable meanwhile.
        ValueError: when the loss is no number any more, or the checkpoint is of another run.
        KeyboardInterrupt: when asked to stop, after a checkpoint.
    """
    steps = options.steps or options.epochs * len(training)
    keras.utils.set_random_seed(options.seed)
    metrics = [TokenCrossEntropy()]
    captioner.compile(
        make_optimizer(options, steps, captioner),
        CaptionLoss(options.label_smoothing),
        metrics,
        # XLA would compile the step again for every row length.
        jit_compile=keras.backend.backend() == "jax",
    )
    captioner.optimizer.build(captioner.trainable_variables)  # has its state before the first step
    identity = run_identity(captioner, training, validation, options)
    folder = RunFolder(out, record or {})
    checkpoint = Checkpoint(folder.checkpoint, identity, metrics)
    position = (checkpoint.position() if resume else None) or Position()
    folder.begin(position)
    loop = Loop(captioner, training, validation, folder, checkpoint, position, samples)
    loop.run(steps, options.patience, checkpoint_minutes, checkpoint_steps)
    return position.history


def run_identity(
    captioner: Captioner,
    training: CaptionBatches,
    validation: CaptionBatches | None,
    options: TrainingOptions,
) -> dict[str, Any]:
    """All that a run must have in common with its checkpoint to go on from it."""
    hparams = {**captioner.hparams(), "training": vars(options)}
    identity: dict[str, Any] = dict(_flat(hparams))
    identity["backend"] = keras.backend.backend()
    identity["tokenizer"] = getattr(captioner.tokenizer, "fingerprint", None)
    identity["training data"] = training.fingerprint
    identity["validation data"] = validation and validation.fingerprint
    return identity


def _flat(values: Mapping[str, Any], before: str = ""):
    for name, value in values.items():
        if isinstance(value, Mapping):
            is_network = "class_name" in value  # whose layers' names may differ; shapes tell
            yield from () if is_network else _flat(value, f"{before}{name}.")
        else:
            yield f"{before}{name}", list(value) if isinstance(value, tuple) else value


class Loop:
    """Epochs, each one `fit`, and what comes after each: validation, presets, pictures.

    Args:
        captioner: compiled.
        training, validation: batches.
        folder: where scores and presets go.
        checkpoint: of this run.
        position: where the run stands; moves on with it.
        samples: photos whose captions TensorBoard shows.
    """

    def __init__(
        self,
        captioner: Captioner,
        training: CaptionBatches,
        validation: CaptionBatches | None,
        folder: RunFolder,
        checkpoint: Checkpoint,
        position: Position,
        samples: Sequence[Photo] = (),
    ):
        self.captioner, self.training, self.validation = captioner, training, validation
        self.folder, self.checkpoint, self.position = folder, checkpoint, position
        self.board = TensorBoard(folder.tensorboard, position, training, samples)
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
                closing(ProgressBar(self.training, self.position, steps, epochs))
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
        self.checkpoint.path.unlink(missing_ok=True)

    def _epoch(self, steps: int) -> None:
        epoch, length = self.position.epoch, len(self.training)
        self.training.start_epoch(epoch)
        first = self.position.steps - epoch * length
        last = min(length, steps - epoch * length)
        self.steps.end = epoch * length + last
        callbacks = [*([self.restore] if self.restore else []), self.steps, self.board, self.bar]
        trained = self.captioner.fit(
            feed(self.training, first, last),
            epochs=epoch + 1,
            initial_epoch=epoch,
            callbacks=callbacks,
            shuffle=False,  # the batches are in random order already, one that can be repeated
            verbose=0,
        )
        self.restore = None
        scores = {name: values[-1] for name, values in trained.history.items()}
        with self.captioner.optimizer.averaged(self.captioner):
            if self.validation is not None:
                self.bar.tell("validating")
                found = self.captioner.evaluate(feed(self.validation), verbose=0, return_dict=True)
                scores |= {f"val_{name}": value for name, value in found.items()}
            scores = finite(scores, epoch)
            is_best = self.position.end_epoch(scores, MONITOR)
            self.bar.tell("saving")
            self.folder.save(self.captioner, self.position, is_best)
            self.board.end_epoch(self.captioner, scores)
        self.folder.say(self.bar.summary(scores, is_best), self.bar.say)
        self.checkpoint.write(self.captioner, self.position)
