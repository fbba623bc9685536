"""Logs of a run: losses and speed by step, scores and captions of photos by epoch."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

import keras
import numpy as np
from PIL import Image

from effcap.images import UnreadablePhoto, load_thumbnail
from effcap.trainers.engine.caption_picture import HEIGHT, WIDTH, placeholder_picture

if TYPE_CHECKING:
    from effcap.captioner import Captioner
    from effcap.trainers.batching.packed import PackedBatches, Preview
    from effcap.trainers.engine.checkpoint import TrainState

STEPS_PER_POINT = 10
STEP_SCORES = ("npair", "reward", "baseline", "length", "distinct")


class LogWriter(Protocol):
    """Writes logs in the format of one tool."""

    def write_scalars(self, scalars: Mapping[str, float], step: int) -> None:
        """Writes numbers by name."""

    def write_caption(self, name: str, caption: str, photo: Image.Image | None, step: int) -> None:
        """Writes a caption, with its photo if there is one."""

    def flush(self) -> None:
        """Makes what was written visible, at the end of an epoch."""

    def close(self, failed: bool) -> None:
        """Ends the log; `failed` is True after an error or an interruption."""


class Point(NamedTuple):
    """The last point of the loss curve.

    Attributes:
        steps: steps of the epoch up to it.
        total: sum of the losses of these steps.
        time: when it was written, in seconds; None at the start of an epoch.
    """

    steps: int
    total: float
    time: float | None


class Logger(keras.callbacks.Callback):
    """Passes losses, scores and captions to writers; use it in a `with` statement.

    Args:
        writers: writers of the logs; none in the processes that write no files.
        state: state of the run.
        batches: training batches.
        previews: examples whose captions are logged after each epoch.
    """

    def __init__(
        self,
        writers: Sequence[LogWriter],
        state: TrainState,
        batches: PackedBatches,
        previews: Sequence[Preview] = (),
    ) -> None:
        super().__init__()
        self.writers, self.state, self.batches = writers, state, batches
        self.previews = previews
        self.point: Point | None = None

    def __enter__(self) -> Logger:
        return self

    def __exit__(self, kind: type[BaseException] | None, *exception: object) -> None:
        for writer in self.writers:
            writer.close(failed=kind is not None)

    def on_epoch_begin(self, epoch: int, logs: Any = None) -> None:
        # In a resumed epoch, the losses of the steps before are unknown until the first step.
        self.point = None if self._steps_of_epoch() else Point(0, 0.0, None)

    def _steps_of_epoch(self) -> int:
        """Returns the steps of the epoch so far, including those before an interruption."""
        return self.state.step - self.state.epoch * len(self.batches)

    def on_train_batch_end(self, batch: int, logs: Any = None) -> None:
        step, steps = self.state.step, self._steps_of_epoch()
        if self.point is not None and (step - 1) % STEPS_PER_POINT:
            return
        # Keras reports the mean over the epoch; a point is the mean since the last point.
        total, now = float(logs["loss"]) * steps, time.perf_counter()
        scalars: dict[str, float] = {}
        if self.point is not None:
            new_steps = steps - self.point.steps
            scalars["step/loss"] = (total - self.point.total) / new_steps
            if self.point.time is not None:
                speed = new_steps * self.batches.batch_size / (now - self.point.time)
                scalars["step/images_per_second"] = speed
        for name in sorted(set(logs) & set(STEP_SCORES)):  # means over the epoch
            scalars[f"step/{name}"] = float(logs[name])
        learning_rate = keras.ops.convert_to_numpy(self.model.optimizer.learning_rate)
        scalars["step/learning_rate"] = float(learning_rate)
        for writer in self.writers:
            writer.write_scalars(scalars, step)
        self.point = Point(steps, total, now)

    def write_epoch(self, captioner: Captioner, scores: Mapping[str, float]) -> None:
        """Writes the scores of an epoch and the captions of the previews."""
        step = self.state.step
        captions = caption_previews(captioner, self.previews)
        for writer in self.writers:
            writer.write_scalars({f"epoch/{name}": value for name, value in scores.items()}, step)
            for number, (preview, caption) in enumerate(zip(self.previews, captions, strict=True)):
                photo = load_preview_photo(preview)
                writer.write_caption(f"captions/{number}", caption, photo, step)
            writer.flush()


def caption_previews(captioner: Captioner, previews: Sequence[Preview]) -> list[str]:
    """Returns the captions of examples."""
    if not previews:
        return []
    inputs = {
        name: np.stack([preview.inputs[name] for preview in previews])  # (B,...)
        for name in previews[0].inputs
    }
    prefixes = [preview.prefix for preview in previews]
    return [captions[0].text for captions in captioner.generate_batch(inputs, prefix=prefixes)]


def load_preview_photo(preview: Preview) -> Image.Image | None:
    """Returns the photo of an example, or a placeholder if it cannot be read; None without one."""
    try:
        return None if preview.photo is None else load_thumbnail(preview.photo, (HEIGHT, WIDTH))
    except UnreadablePhoto as error:  # possible with features, which are all that training reads
        return placeholder_picture(error.reason)
