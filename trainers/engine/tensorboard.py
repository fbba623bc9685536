"""What TensorBoard shows of a run."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import keras
import numpy as np
from PIL import Image, ImageDraw, ImageFont

from effcap.images import UnreadablePhoto, load_thumbnail

if TYPE_CHECKING:
    from effcap.captioner import Captioner
    from effcap.trainers.batching.packed import PackedBatches, Sample
    from effcap.trainers.engine.checkpoint import Position

EVERY = 10  # steps between two points
OF_SAMPLES = ("reward", "baseline", "length", "distinct")  # of self-critical training
WIDTH, HEIGHT = 320, 320  # of photos, at most


class TensorBoard(keras.callbacks.Callback):
    """Loss, learning rate and images per second as training goes on; scores and sample captions
    after each epoch.

    Args:
        folder: where the event files go.
        position: where the run stands.
        batches: what is trained on.
        samples: whose captions to show.
        writes: whether this process does; others compute the same beside it.
    """

    def __init__(
        self,
        folder: Path,
        position: Position,
        batches: PackedBatches,
        samples: Sequence[Sample] = (),
        *,
        writes: bool = True,
    ):
        super().__init__()
        from tensorboardX import SummaryWriter

        self.position, self.batches, self.samples = position, batches, samples
        # What an interrupted run wrote after its checkpoint is not shown twice.
        self.writer = SummaryWriter(
            str(folder), purge_step=position.steps + 1, write_to_disk=writes
        )

    def on_epoch_begin(self, epoch, logs=None):
        self.told = None if self._seen() else (0, 0.0, None)

    def _seen(self) -> int:
        """Steps since the epoch began, those before the run was stopped included."""
        return self.position.steps - self.position.epoch * len(self.batches)

    def on_train_batch_end(self, batch, logs=None):
        step, seen = self.position.steps, self._seen()
        if self.told is not None and (step - 1) % EVERY:
            return
        # Keras gives the mean since the epoch began; here, the mean since the last point.
        total, now = float(logs["loss"]) * seen, time.perf_counter()
        if self.told is not None:
            steps, before, then = self.told
            self.writer.add_scalar("step/loss", (total - before) / (seen - steps), step)
            if then is not None:
                rate = (seen - steps) * self.batches.batch_size / (now - then)
                self.writer.add_scalar("step/images_per_second", rate, step)
        for name in sorted(set(logs) & set(OF_SAMPLES)):  # means since the epoch began
            self.writer.add_scalar(f"step/{name}", float(logs[name]), step)
        learning_rate = float(keras.ops.convert_to_numpy(self.model.optimizer.learning_rate))
        self.writer.add_scalar("step/learning_rate", learning_rate, step)
        self.told = seen, total, now

    def end_epoch(self, captioner: Captioner, scores: Mapping[str, float]) -> None:
        """Scores of an epoch, and what the captioner writes now."""
        step = self.position.steps
        for name, value in scores.items():
            self.writer.add_scalar(f"epoch/{name}", value, step)
        captions = zip(self.samples, self._write(captioner), strict=True)
        for number, (sample, caption) in enumerate(captions):
            name, photo = f"captions/{number}", thumbnail(sample)
            if photo is None:
                self.writer.add_text(name, caption, step)
            else:
                picture = np.asarray(caption_picture(photo, caption))
                self.writer.add_image(name, picture, step, dataformats="HWC")
        self.writer.flush()

    def _write(self, captioner: Captioner) -> list[str]:
        """What the captioner writes of the samples."""
        if not self.samples:
            return []
        inputs = {
            name: np.stack([sample.inputs[name] for sample in self.samples])  # (B,...)
            for name in self.samples[0].inputs
        }
        return [options[0].text for options in captioner.generate_batch(inputs)]

    def close(self) -> None:
        """Writes what is left, also when training was interrupted."""
        self.writer.close()


def thumbnail(sample: Sample) -> Image.Image | None:
    """The sample's photo; None where there is none to show."""
    try:
        return None if sample.photo is None else load_thumbnail(sample.photo, (HEIGHT, WIDTH))
    except UnreadablePhoto:  # it was features of it that were trained on
        return None


def caption_picture(photo: Image.Image, caption: str, width: int = WIDTH) -> Image.Image:
    """The photo, centred, with its caption in a white strip below it; at least `width` wide."""
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
