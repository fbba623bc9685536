"""The training loop: trains each epoch, then validates, saves presets and writes a checkpoint."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

from effcap.trainers.batching.packed import PackedBatches, Preview
from effcap.trainers.distributed.processes import process_count
from effcap.trainers.engine.callbacks import CheckpointSteps, RestoreCheckpoint, TrainingProgress
from effcap.trainers.engine.checkpoint import Checkpoint, TrainState, check_finite
from effcap.trainers.engine.curves import CurveWriter
from effcap.trainers.engine.interruption import Interruption
from effcap.trainers.engine.logger import Logger, LogWriter
from effcap.trainers.engine.report_writer import ReportWriter
from effcap.trainers.engine.run_folder import RunFolder
from effcap.trainers.engine.tensorboard import TensorBoardWriter
from effcap.trainers.engine.validation import CiderValidator, Validation
from effcap.trainers.engine.weights_and_biases import WandbWriter
from effcap.trainers.objectives.base import Objective
from effcap.trainers.options.run import RunOptions
from effcap.trainers.options.training import TrainingOptions
from effcap.trainers.reports.run_notes import RunNotes

if TYPE_CHECKING:
    from effcap.captioner import Captioner


@dataclass(frozen=True)
class RunBatches:
    """Batches of a run.

    Attributes:
        training: training batches.
        validation: validation batches; None to train without validation.
        previews: examples whose captions are logged after each epoch.
    """

    training: PackedBatches
    validation: PackedBatches | None = None
    previews: Sequence[Preview] = ()


@dataclass
class Loop:
    """Trains a captioner epoch by epoch.

    Attributes:
        captioner: compiled captioner.
        objective: trains and validates an epoch.
        batches: training and validation batches.
        folder: run folder, for presets and scores.
        checkpoint: checkpoint of the run.
        state: state of the run, which the loop advances.
        options: options of the run.
    """

    captioner: Captioner
    objective: Objective
    batches: RunBatches
    folder: RunFolder
    checkpoint: Checkpoint
    state: TrainState
    options: RunOptions

    def run(self) -> list[dict[str, float]]:
        """Trains until all steps are taken, or validation has not improved for `patience` epochs.

        Returns:
            The scores of each epoch.

        Raises:
            UnreadablePhoto: a photo has become unreadable.
            ValueError: a score is NaN or infinite.
            KeyboardInterrupt: the run was interrupted, after a checkpoint.
        """
        training, state, options = self.batches.training, self.state, self.options
        patience = options.training_options.patience
        is_writer = self.folder.is_writer
        self.cider = self._make_cider_validator()
        with (
            Interruption() as interruption,
            Logger(self._make_writers(), state, training, self.batches.previews) as self.logger,
            TrainingProgress(
                training, state, self.num_steps, self.num_epochs, is_shown=is_writer
            ) as self.progress,
            raising_data_errors(self.batches),
        ):
            self.checkpoint_steps = CheckpointSteps(
                self.checkpoint,
                state,
                interruption,
                options.checkpoint_minutes,
                options.checkpoint_steps,
            )
            self.callbacks = [self.checkpoint_steps, self.logger, self.progress]
            if state.step:
                within_epoch = state.step > state.epoch * len(training)
                self.callbacks.insert(0, RestoreCheckpoint(self.checkpoint, within_epoch))
            while state.epoch < self.num_epochs:
                scores = self._train_epoch()
                self._end_epoch(scores)
                if patience is not None and state.stale >= patience:
                    self.folder.log(f"no improvement for {patience} epochs, training stops early")
                    break
            self.captioner.optimizer.assign_averages(self.captioner)
            self.folder.finish(state)  # before the writers are closed, which show the run's state
        self.checkpoint.remove()
        return state.history

    @property
    def num_steps(self) -> int:
        """Number of steps of the run."""
        return count_steps(self.options.training_options, self.batches.training)

    @property
    def num_epochs(self) -> int:
        """Number of epochs of the run, unless it stops early."""
        return math.ceil(self.num_steps / len(self.batches.training))

    def _train_epoch(self) -> dict[str, float]:
        """Trains the rest of the current epoch and returns its scores."""
        training, epoch = self.batches.training, self.state.epoch
        length = len(training)
        first = self.state.step - epoch * length
        last = min(length, self.num_steps - epoch * length)
        training.start_epoch(epoch)
        self.checkpoint_steps.last_step = epoch * length + last
        return self.objective.train_epoch(
            self.captioner, training, range(first, last), epoch, self.callbacks
        )

    def _end_epoch(self, scores: dict[str, float]) -> None:
        """Validates and saves the averaged weights, logs the scores, and writes a checkpoint."""
        with self.captioner.optimizer.averaged(self.captioner):
            val_scores, validation = self._validate()
            scores = check_finite({**scores, **val_scores}, self.state.epoch)
            is_best = self.state.end_epoch(scores)
            self.progress.set_status("saving")
            self.folder.save(self.captioner, self.state, is_best)
            if self.report is not None and validation is not None:
                self.report.write_validation(validation, self.state.epoch, is_best)
            self.logger.write_epoch(self.captioner, scores)
        self.folder.log(self.progress.summary(scores, is_best), self.progress.print_line)
        for batches in (self.batches.training, self.batches.validation):
            if batches is not None and (line := batches.skipped_summary()):
                self.folder.log(line, self.progress.print_line)
        self.checkpoint.write(self.captioner, self.state)

    def _validate(self) -> tuple[dict[str, float], Validation | None]:
        """Returns all validation scores, and the result of the validation by CIDEr."""
        if self.batches.validation is None:
            return {}, None
        self.progress.set_status("validating")
        scores = self.objective.validate(self.captioner, self.batches.validation)
        if self.cider is None:
            return scores, None
        validation = self.cider.validate(self.progress.set_status)
        return {**scores, **validation.scores}, validation

    def _make_writers(self) -> list[LogWriter]:
        folder, step = self.folder, self.state.step
        self.report: ReportWriter | None = None
        if not folder.is_writer:
            return []
        writers: list[LogWriter] = [CurveWriter(folder.path, step, len(self.batches.training))]
        notes = RunNotes(
            folder.path,
            self.num_epochs,
            "training" if self.batches.validation is None else "validation",
            self.state.epoch,
            resume=self.options.resume,
        )
        self.report = ReportWriter(notes, self.batches.previews)
        writers.append(self.report)
        if "tensorboard" in self.options.log:
            writers.append(TensorBoardWriter(folder.tensorboard, step))
        if "wandb" in self.options.log:
            writers.append(WandbWriter(folder.path, folder.record, self.options.resume))
        return writers

    def _make_cider_validator(self) -> CiderValidator | None:
        validation = self.batches.validation
        settings = self.options.training_options
        num_photos = settings.num_cider_photos
        if validation is None or not num_photos or process_count() > 1:
            return None
        return CiderValidator(self.captioner, validation, num_photos, settings.tokenization)


def count_steps(options: TrainingOptions, batches: PackedBatches) -> int:
    """Returns the number of steps of a run."""
    return options.steps or options.epochs * len(batches)


@contextmanager
def raising_data_errors(batches: RunBatches) -> Iterator[None]:
    """Raises the original error of a failed batch, which Keras wraps in a long traceback."""
    try:
        yield
    except Exception:
        for dataset in (batches.training, batches.validation):
            if dataset is not None and dataset.failure is not None:
                raise dataset.failure from None
        raise
