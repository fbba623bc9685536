"""What TensorBoard shows of a run."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import keras
import numpy as np
from PIL import Image, ImageDraw, ImageFont

from effcap.photos import load_thumbnail

if TYPE_CHECKING:
    from effcap.photos import Photo

EVERY = 10  # steps between two points
WIDTH, HEIGHT = 320, 320  # of photos, at most


class TensorBoard(keras.callbacks.Callback):
    """Loss and learning rate as training goes on; losses and sample captions after each epoch.

    Args:
        folder: where the event files go.
        samples: photos whose captions to show.
    """

    def __init__(self, folder: Path, samples: Sequence[Photo] = ()):
        super().__init__()
        self.folder, self.samples = folder, samples
        self.writer = None
        self.step = 0

    def on_train_begin(self, logs=None):
        from tensorboardX import SummaryWriter

        self.writer = SummaryWriter(str(self.folder))

    def on_epoch_begin(self, epoch, logs=None):
        self.seen, self.total = 0, 0.0  # steps of this epoch, and the sum of their losses

    def on_train_batch_end(self, batch, logs=None):
        self.step += 1
        if (self.step - 1) % EVERY == 0:
            # Keras gives the mean since the epoch began; here, the mean since the last point.
            total = float(logs["loss"]) * (batch + 1)
            loss = (total - self.total) / (batch + 1 - self.seen)
            self.seen, self.total = batch + 1, total
            rate = float(keras.ops.convert_to_numpy(self.model.optimizer.learning_rate))
            self.writer.add_scalar("step/loss", loss, self.step)
            self.writer.add_scalar("step/learning_rate", rate, self.step)

    def on_epoch_end(self, epoch, logs=None):
        for name, value in logs.items():
            self.writer.add_scalar(f"epoch/{name}", float(value), self.step)
        if self.samples:
            captions = self.model.generate(self.samples)
            for number, (photo, caption) in enumerate(zip(self.samples, captions, strict=True)):
                picture = caption_picture(load_thumbnail(photo, (HEIGHT, WIDTH)), caption)
                self.writer.add_image(
                    f"captions/{number}", np.asarray(picture), self.step, dataformats="HWC"
                )
        self.writer.flush()

    def close(self) -> None:
        """Writes what is left, also when training was interrupted."""
        if self.writer is not None:
            self.writer.close()


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
