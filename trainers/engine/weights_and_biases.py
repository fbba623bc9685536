"""Logs of a run in Weights & Biases (the extra `wandb`)."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from PIL import Image

from effcap.utils.files import write_text_atomically

PROJECT = "effcap"  # default of WANDB_PROJECT
ID = "wandb_id.txt"  # in a run folder


class WandbWriter:
    """Logs to a run of Weights & Biases; a `LogWriter`.

    The environment variables of wandb apply, such as WANDB_MODE=offline and WANDB_PROJECT.

    Args:
        folder: run folder, which holds the id of the run, so that a resumed run continues it.
        config: configuration of the run, for its page.
        resume: whether to continue the run whose id is in the folder.

    Raises:
        ConnectionError: wandb cannot start, for instance without a login.
    """

    def __init__(self, folder: Path, config: Mapping[str, Any], resume: bool) -> None:
        import wandb

        self._picture = wandb.Image
        file = folder / ID
        try:
            self.run = wandb.init(
                project=os.environ.get("WANDB_PROJECT", PROJECT),
                name=os.environ.get("WANDB_NAME", folder.name),
                dir=os.environ.get("WANDB_DIR", str(folder)),
                id=file.read_text(encoding="utf-8") if resume and file.is_file() else None,
                resume="allow",
                config=dict(config),
                settings=wandb.Settings(console="off"),  # the progress bar is not a log
            )
        except wandb.Error as error:
            raise ConnectionError(
                f"wandb cannot start: {error} Log in with `wandb login`, or set WANDB_MODE=offline"
            ) from error
        write_text_atomically(file, self.run.id)
        # Steps after the last checkpoint are logged again, which wandb's own step does not allow.
        self.run.define_metric("*", step_metric="step")

    def write_scalars(self, scalars: Mapping[str, float], step: int) -> None:
        """Logs numbers by name."""
        self.run.log({**scalars, "step": step})

    def write_caption(self, name: str, caption: str, photo: Image.Image | None, step: int) -> None:
        """Logs a photo with its caption, or the caption as text."""
        value = caption if photo is None else self._picture(photo, caption=caption)
        self.run.log({name: value, "step": step})

    def flush(self) -> None:
        """Does nothing, because wandb sends logs as they come."""

    def close(self, failed: bool) -> None:
        """Ends the run."""
        self.run.finish(exit_code=int(failed))
