"""What happens from step to step while a captioner trains: counting, checkpoints, progress."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

import keras

from effcap.trainers.distributed.processes import Agreement
from effcap.utils.progress import Bar

if TYPE_CHECKING:
    from effcap.trainers.batching.packed import PackedBatches
    from effcap.trainers.engine.checkpoint import Checkpoint, Position
    from effcap.trainers.engine.interruption import Interruption


class Restore(keras.callbacks.Callback):
    """Gives the captioner the checkpoint's state once Keras has built and reset everything.

    Args:
        checkpoint: of this run.
        within_epoch: whether it was written within an epoch, whose running means then go on.
    """

    def __init__(self, checkpoint: Checkpoint, within_epoch: bool):
        super().__init__()
        self.checkpoint, self.within_epoch = checkpoint, within_epoch

    def on_epoch_begin(self, epoch, logs=None):
        self.checkpoint.restore(self.model)
        if not self.within_epoch:
            for metric in (*self.model.metrics, *self.checkpoint.metrics):
                metric.reset_state()


class Steps(keras.callbacks.Callback):
    """Counts steps, writes checkpoints between them, and stops in good order when asked to.

    Args:
        checkpoint: of this run.
        position: moves on with each step.
        interruption: says when to stop; whichever host is asked to, all of them stop together.
        minutes: between two checkpoints.
        steps: between two checkpoints, in place of the minutes.
    """

    def __init__(
        self,
        checkpoint: Checkpoint,
        position: Position,
        interruption: Interruption,
        minutes: float,
        steps: int | None,
    ):
        super().__init__()
        self.checkpoint, self.position, self.interruption = checkpoint, position, interruption
        self.agreement = Agreement()
        self.minutes, self.steps = minutes, steps
        self.end = 0  # of the epoch, in steps of the run; a checkpoint follows it anyway
        self.written = time.monotonic()

    def on_train_batch_end(self, batch, logs=None):
        self.position.steps += 1
        asked = self.agreement.hear(self.interruption.asked)
        if self.position.steps < self.end and (asked or self._due()):
            self.checkpoint.write(self.model, self.position)
            self.written = time.monotonic()
            if asked:
                raise KeyboardInterrupt(
                    f"stopped after step {self.position.steps}; the same command goes on from "
                    "there with --resume"
                )

    def _due(self) -> bool:
        if self.steps is not None:
            return self.position.steps % self.steps == 0
        return time.monotonic() - self.written >= 60 * self.minutes


class NoBar(Bar):
    """In place of a `Bar`, where another process has one."""

    def __enter__(self):
        return self

    def __exit__(self, *_):
        pass

    def advance(self, status=None, steps=1):
        pass

    def tell(self, status):
        pass

    def say(self, line):
        pass


# Scores of an epoch that are told besides the loss, and what they are called.
TOLD = (
    ("reward", "reward"),
    ("baseline", "baseline"),
    ("cross_entropy", "cross-entropy"),
    ("val_cross_entropy", "validation cross-entropy"),
    ("val_cider", "validation CIDEr"),
)


class ProgressBar(keras.callbacks.Callback):
    """A progress bar with time left and images per second.

    Args:
        batches: what is trained on.
        position: where the run stands.
        steps, epochs: in the whole run.
        shown: whether to show it; of several processes, one does.
    """

    REFRESH = 0.5  # seconds; to look at the loss is to wait for the step

    def __init__(
        self,
        batches: PackedBatches,
        position: Position,
        steps: int,
        epochs: int,
        *,
        shown: bool = True,
    ):
        super().__init__()
        self.batches, self.epochs = batches, epochs
        self.epoch = position.epoch
        self.bar = (Bar if shown else NoBar)("training", steps, done=position.steps)
        self.bar.__enter__()
        self.bar.tell("compiling")

    def on_epoch_begin(self, epoch, logs=None):
        self.epoch = epoch
        self.begun = time.perf_counter()
        self.rate = 0.0

    def on_train_batch_end(self, batch, logs=None):
        now = time.perf_counter()
        if batch == 0:  # which took longer, since it was being compiled
            self.started = self.told = now
        else:
            self.rate = batch * self.batches.batch_size / max(now - self.started, 1e-6)
        status = None
        if batch == 0 or now - self.told >= self.REFRESH:
            self.told = now
            rate = f", {self.rate:.0f} images/s" if self.rate else ""
            shown = "reward" if "reward" in logs else "loss"
            status = f"{shown} {float(logs[shown]):.3f}{rate}"
        self.bar.advance(status)

    def tell(self, status: str) -> None:
        """Shows what is going on between two epochs."""
        self.bar.tell(status)

    def say(self, line: str) -> None:
        """Prints a line above the bar."""
        self.bar.say(line)

    def summary(self, scores: dict[str, float], is_best: bool) -> str:
        """An epoch in a line."""
        parts = [f"epoch {self.epoch + 1} of {self.epochs}: loss {scores['loss']:.4f}"]
        parts += [f"{label} {scores[name]:.4f}" for name, label in TOLD if name in scores]
        if is_best and any(name.startswith("val_") for name in scores):
            parts[-1] += " (the best)"
        if self.rate:
            parts.append(f"{self.rate:.0f} images/s")
        return ", ".join([*parts, f"{time.perf_counter() - self.begun:.0f} s"])

    def close(self) -> None:
        """Leaves the terminal in order, also when training was interrupted."""
        self.bar.__exit__()
