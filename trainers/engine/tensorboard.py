"""TensorBoard logs: curves, and captions under their photos."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from effcap.trainers.engine.logger import WIDTH


class TensorBoardWriter:
    """Writes event files for TensorBoard; a `LogWriter`.

    Args:
        folder: folder of the event files.
        step: step that the run starts from. Points that an interrupted run wrote after it, are not
            shown twice.
    """

    def __init__(self, folder: Path, step: int) -> None:
        from tensorboardX import SummaryWriter

        self.writer = SummaryWriter(str(folder), purge_step=step + 1)

    def write_scalars(self, scalars: Mapping[str, float], step: int) -> None:
        """Writes numbers by name."""
        for name, value in scalars.items():
            self.writer.add_scalar(name, value, step)

    def write_caption(self, name: str, caption: str, photo: Image.Image | None, step: int) -> None:
        """Writes a photo with its caption below, or the caption as text where that is impossible.

        The font of the picture has ASCII characters only.
        """
        is_drawn = photo is not None and caption.isascii()
        if photo is not None:
            picture = draw_caption(photo, caption) if is_drawn else photo
            self.writer.add_image(name, np.asarray(picture), step, dataformats="HWC")  # (h,w,3)
        if not is_drawn:
            self.writer.add_text(name, caption, step)

    def flush(self) -> None:
        """Writes the event files to disk."""
        self.writer.flush()

    def close(self, failed: bool) -> None:
        """Closes the event files."""
        self.writer.close()


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
