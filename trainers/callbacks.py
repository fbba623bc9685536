"""What happens while a captioner trains: epochs, progress, presets."""

from __future__ import annotations

import json
import math
import time
from pathlib import Path
from typing import TYPE_CHECKING

import keras

from effcap.presets import RECORD
from effcap.trainers.progress import Bar

if TYPE_CHECKING:
    from effcap.trainers.batches import CaptionBatches


class EpochStart(keras.callbacks.Callback):
    """Gives each epoch the batches of its number, whatever Keras read before it began."""

    def __init__(self, batches: CaptionBatches):
        super().__init__()
        self.batches = batches

    def on_epoch_begin(self, epoch, logs=None):
        if self.batches.shuffle:
            self.batches.start_epoch(epoch)


class StopAfter(keras.callbacks.Callback):
    """Ends training after that many steps."""

    def __init__(self, steps: int):
        super().__init__()
        self.left = steps

    def on_train_batch_end(self, batch, logs=None):
        self.left -= 1
        if self.left == 0:
            self.model.stop_training = True


class ProgressBar(keras.callbacks.Callback):
    """A progress bar with time left and images per second; a line per epoch.

    Args:
        batches: what is trained on.
        steps: in the whole run.
    """

    REFRESH = 0.5  # seconds; to look at the loss is to wait for the step

    def __init__(self, batches: CaptionBatches, steps: int):
        super().__init__()
        self.batches = batches
        self.bar = Bar("training", steps)

    def on_train_begin(self, logs=None):
        self.bar.__enter__()
        self.bar.tell("compiling")

    def on_epoch_begin(self, epoch, logs=None):
        self.begun = time.perf_counter()
        self.rate = 0.0

    def on_train_batch_end(self, batch, logs=None):
        now = time.perf_counter()
        if batch == 0:  # which took longer, since it was being compiled
            self.started = self.told = now
        else:
            images = min((batch + 1) * self.batches.batch_size, self.batches.images)
            images -= self.batches.batch_size
            self.rate = images / max(now - self.started, 1e-6)
        status = None
        if batch == 0 or now - self.told >= self.REFRESH:
            self.told = now
            rate = f", {self.rate:.0f} images/s" if self.rate else ""
            status = f"loss {float(logs['loss']):.3f}{rate}"
        self.bar.advance(status)

    def on_test_begin(self, logs=None):
        self.bar.tell("validating")

    def on_test_end(self, logs=None):
        self.bar.tell("saving")

    def on_epoch_end(self, epoch, logs=None):
        parts = [f"epoch {epoch + 1} of {self.params['epochs']}: loss {logs['loss']:.4f}"]
        for name, label in (
            ("cross_entropy", "cross-entropy"),
            ("val_cross_entropy", "validation cross-entropy"),
        ):
            if name in logs:
                parts.append(f"{label} {logs[name]:.4f}")
        if self.rate:
            parts.append(f"{self.rate:.0f} images/s")
        self.bar.say(", ".join([*parts, f"{time.perf_counter() - self.begun:.0f} s"]))

    def close(self) -> None:
        """Leaves the terminal in order, also when training was interrupted."""
        self.bar.__exit__()


class Presets(keras.callbacks.Callback):
    """Saves the captioner after each epoch as `last`, and as `best` when it is.

    Args:
        out: run folder.
        record: how the run came about; written with the scores as training.json.
        monitor: what the best has least of; without it in the logs, the last is the best.
    """

    def __init__(self, out: Path, record: dict, monitor: str = "val_cross_entropy"):
        super().__init__()
        self.out, self.record, self.monitor = out, record, monitor
        self.best = float("inf")

    def on_epoch_end(self, epoch, logs=None):
        scores = {name: float(value) for name, value in (logs or {}).items()}
        for name, value in scores.items():
            if not math.isfinite(value):
                raise ValueError(
                    f"Training came apart in epoch {epoch + 1}: {name} is {value}. Try a lower "
                    "learning rate. What was saved before is in place."
                )
        names = ["last"]
        value = scores.get(self.monitor, -epoch)
        if value < self.best:
            self.best = value
            names.append("best")
        for name in names:
            self.model.save_to_preset(self.out / name)
            record = {**self.record, "epoch": epoch + 1, "scores": scores}
            text = json.dumps(record, indent=2) + "\n"
            (self.out / name / RECORD).write_text(text, encoding="utf-8")
