"""TensorBoard logs: curves, and captions under their photos."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np
from PIL import Image

from effcap.trainers.engine.caption_picture import draw_caption

IN_TEXT = "(caption: see Text)"  # in place of a caption that no font can show


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
        """Writes a photo with its caption below.

        Without a photo, or a font of the caption's script, the caption is written as text.
        """
        picture = None if photo is None else draw_caption(photo, caption)
        if picture is None:
            self.writer.add_text(name, caption, step)
            picture = None if photo is None else draw_caption(photo, IN_TEXT)
        if picture is not None:
            self.writer.add_image(name, np.asarray(picture), step, dataformats="HWC")  # (h,w,3)

    def flush(self) -> None:
        """Writes the event files to disk."""
        self.writer.flush()

    def close(self, failed: bool) -> None:
        """Closes the event files."""
        self.writer.close()
