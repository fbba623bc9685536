"""Keras callbacks of a run: checkpoints and progress."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

import keras

from effcap.trainers.distributed.processes import AnyProcess
from effcap.utils.progress import ProgressBar

if TYPE_CHECKING:
    from effcap.trainers.batching.packed import PackedBatches
    from effcap.trainers.engine.checkpoint import Checkpoint, TrainState
    from effcap.trainers.engine.interruption import Interruption


class RestoreCheckpoint(keras.callbacks.Callback):
    """Restores a checkpoint once, after Keras has built and reset everything for the first epoch.

    Args:
        checkpoint: checkpoint of the run.
        within_epoch: whether it was written within an epoch, so that running means are kept.
    """

    def __init__(self, checkpoint: Checkpoint, within_epoch: bool) -> None:
        super().__init__()
        self.checkpoint, self.within_epoch = checkpoint, within_epoch
        self.is_restored = False

    def on_epoch_begin(self, epoch: int, logs: Any = None) -> None:
        if self.is_restored:
            return
        self.checkpoint.restore(self.model)
        self.is_restored = True
        if not self.within_epoch:
            for metric in (*self.model.metrics, *self.checkpoint.metrics):
                metric.reset_state()


class CheckpointSteps(keras.callbacks.Callback):
    """Counts steps, writes checkpoints at intervals, and stops on request.

    Args:
        checkpoint: checkpoint of the run.
        state: state of the run, whose steps are counted.
        interruption: request to stop. A request in one process stops all after the same step.
        minutes: minutes between two checkpoints.
        steps: steps between two checkpoints, instead of minutes.

    Attributes:
        last_step: last step of the epoch, after which the loop writes a checkpoint.
    """

    def __init__(
        self,
        checkpoint: Checkpoint,
        state: TrainState,
        interruption: Interruption,
        minutes: float,
        steps: int | None,
    ) -> None:
        super().__init__()
        self.checkpoint, self.state, self.interruption = checkpoint, state, interruption
        self.minutes, self.steps = minutes, steps
        self.last_step = 0
        self._any_process = AnyProcess()
        self._written = time.monotonic()

    def on_train_batch_end(self, batch: int, logs: Any = None) -> None:
        self.state.step += 1
        stop = self._any_process.update(self.interruption.requested)
        if self.state.step < self.last_step and (stop or self._is_due()):
            self.checkpoint.write(self.model, self.state)
            self._written = time.monotonic()
            if stop:
                raise KeyboardInterrupt(
                    f"stopped after step {self.state.step}; resume with the same command and "
                    "--resume"
                )

    def _is_due(self) -> bool:
        if self.steps is not None:
            return self.state.step % self.steps == 0
        return time.monotonic() - self._written >= 60 * self.minutes


class HiddenProgressBar(ProgressBar):
    """A `ProgressBar` that shows nothing, for all processes but the main one."""

    def __enter__(self) -> HiddenProgressBar:
        return self

    def __exit__(self, *exception: object) -> None:
        pass

    def advance(self, status: str | None = None, steps: int = 1) -> None:
        pass

    def set_status(self, status: str) -> None:
        pass

    def print_line(self, line: str) -> None:
        pass


# Scores of an epoch that are printed after the loss, with their labels.
PRINTED_SCORES = (
    ("reward", "reward"),
    ("baseline", "baseline"),
    ("cross_entropy", "cross-entropy"),
    ("npair", "n-pair loss"),
    ("val_cross_entropy", "validation cross-entropy"),
    ("val_cider", "validation CIDEr"),
)


class TrainingProgress(keras.callbacks.Callback):
    """Shows a progress bar with the remaining time and images per second, in a `with` statement.

    Args:
        batches: training batches.
        state: state of the run.
        num_steps: number of steps of the run.
        num_epochs: number of epochs of the run.
        is_shown: whether to show it; only the main process does.
    """

    REFRESH_SECONDS = 0.5  # reading the loss waits for the step to finish

    def __init__(
        self,
        batches: PackedBatches,
        state: TrainState,
        num_steps: int,
        num_epochs: int,
        *,
        is_shown: bool = True,
    ) -> None:
        super().__init__()
        self.batches, self.num_epochs = batches, num_epochs
        self.epoch = state.epoch
        bar = ProgressBar if is_shown else HiddenProgressBar
        self.bar = bar("training", num_steps, done=state.step)
        self.set_status, self.print_line = self.bar.set_status, self.bar.print_line

    def __enter__(self) -> TrainingProgress:
        self.bar.__enter__()
        self.set_status("compiling")
        return self

    def __exit__(self, *exception: object) -> None:
        self.bar.__exit__(*exception)

    def on_epoch_begin(self, epoch: int, logs: Any = None) -> None:
        self.epoch = epoch
        self.started = time.perf_counter()
        self.images_per_second = 0.0

    def on_train_batch_end(self, batch: int, logs: Any = None) -> None:
        now = time.perf_counter()
        if batch == 0:  # the first step includes compilation, so the speed is measured after it
            self.first_step_end = self.refreshed = now
        else:
            seconds = max(now - self.first_step_end, 1e-6)
            self.images_per_second = batch * self.batches.batch_size / seconds
        status = None
        if batch == 0 or now - self.refreshed >= self.REFRESH_SECONDS:
            self.refreshed = now
            name = "reward" if "reward" in logs else "loss"
            status = f"{name} {float(logs[name]):.3f}"
            if self.images_per_second:
                status += f", {self.images_per_second:.0f} images/s"
        self.bar.advance(status)

    def summary(self, scores: dict[str, float], is_best: bool) -> str:
        """Returns an epoch's scores, speed and duration in one line."""
        words = [f"epoch {self.epoch + 1} of {self.num_epochs}: loss {scores['loss']:.4f}"]
        words += [f"{label} {scores[name]:.4f}" for name, label in PRINTED_SCORES if name in scores]
        if is_best and any(name.startswith("val_") for name in scores):
            words[-1] += " (the best)"
        if self.images_per_second:
            words.append(f"{self.images_per_second:.0f} images/s")
        return ", ".join([*words, f"{time.perf_counter() - self.started:.0f} s"])
