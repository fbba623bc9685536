"""TensorBoard logs: losses and speed per step, scores and captioned photos per epoch."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import keras
import numpy as np
from PIL import Image, ImageDraw, ImageFont

from effcap.images import UnreadablePhoto, load_thumbnail

if TYPE_CHECKING:
    from effcap.captioner import Captioner
    from effcap.trainers.batching.packed import PackedBatches, Preview
    from effcap.trainers.engine.checkpoint import TrainState

STEPS_PER_POINT = 10
STEP_SCORES = ("npair", "reward", "baseline", "length", "distinct")
WIDTH, HEIGHT = 320, 320  # maximum size of a photo, in pixels


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


class TensorBoard(keras.callbacks.Callback):
    """Writes event files; use it in a `with` statement.

    Args:
        folder: folder of the event files.
        state: state of the run.
        batches: training batches.
        previews: examples whose captions are shown after each epoch.
        is_writer: whether this process writes files.
    """

    def __init__(
        self,
        folder: Path,
        state: TrainState,
        batches: PackedBatches,
        previews: Sequence[Preview] = (),
        *,
        is_writer: bool = True,
    ) -> None:
        super().__init__()
        from tensorboardX import SummaryWriter

        self.state, self.batches, self.previews = state, batches, previews
        # Points that an interrupted run wrote after its checkpoint are not shown twice.
        self.writer = SummaryWriter(str(folder), purge_step=state.step + 1, write_to_disk=is_writer)
        self.point: Point | None = None

    def __enter__(self) -> TensorBoard:
        return self

    def __exit__(self, *exception: object) -> None:
        self.writer.close()

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
        if self.point is not None:
            new_steps = steps - self.point.steps
            self.writer.add_scalar("step/loss", (total - self.point.total) / new_steps, step)
            if self.point.time is not None:
                speed = new_steps * self.batches.batch_size / (now - self.point.time)
                self.writer.add_scalar("step/images_per_second", speed, step)
        for name in sorted(set(logs) & set(STEP_SCORES)):  # means over the epoch
            self.writer.add_scalar(f"step/{name}", float(logs[name]), step)
        learning_rate = float(keras.ops.convert_to_numpy(self.model.optimizer.learning_rate))
        self.writer.add_scalar("step/learning_rate", learning_rate, step)
        self.point = Point(steps, total, now)

    def write_epoch(self, captioner: Captioner, scores: Mapping[str, float]) -> None:
        """Writes the scores of an epoch and the captions of the previews."""
        step = self.state.step
        for name, value in scores.items():
            self.writer.add_scalar(f"epoch/{name}", value, step)
        captions = caption_previews(captioner, self.previews)
        for number, (preview, caption) in enumerate(zip(self.previews, captions, strict=True)):
            name, photo = f"captions/{number}", load_preview_photo(preview)
            if photo is None:
                self.writer.add_text(name, caption, step)
            else:
                picture = np.asarray(draw_caption(photo, caption))  # (h,w,3)
                self.writer.add_image(name, picture, step, dataformats="HWC")
        self.writer.flush()


def caption_previews(captioner: Captioner, previews: Sequence[Preview]) -> list[str]:
    """Returns the captions of examples."""
    if not previews:
        return []
    inputs = {
        name: np.stack([preview.inputs[name] for preview in previews])  # (B,...)
        for name in previews[0].inputs
    }
    return [captions[0].text for captions in captioner.generate_batch(inputs)]


def load_preview_photo(preview: Preview) -> Image.Image | None:
    """Returns the photo of an example; None if there is none, or it cannot be read."""
    try:
        return None if preview.photo is None else load_thumbnail(preview.photo, (HEIGHT, WIDTH))
    except UnreadablePhoto:  # possible with cached features, which are all that training reads
        return None


def draw_caption(photo: Image.Image, caption: str, width: int = WIDTH) -> Image.Image:
    """Returns the photo, centered, with its caption in a white strip below.

    Args:
        photo: the photo.
        caption: its caption, which is wrapped.
        width: minimum width of the picture, in pixels.
    """
    font = ImageFont.load_default(size=16)
    width = max(width, photo.width)
    lines, line = [], ""
    for word in caption.split():
        longer = f"{line} {word}".strip()
        if line and font.getlength(longer) > width - 16:
            lines.append(line)
            line = word
        else:
            line = longer
    lines.append(line)
    picture = Image.new("RGB", (width, photo.height + 22 * len(lines) + 14), "white")
    picture.paste(photo, ((width - photo.width) // 2, 0))
    text = "\n".join(lines)
    ImageDraw.Draw(picture).multiline_text((8, photo.height + 6), text, "black", font, spacing=4)
    return picture
