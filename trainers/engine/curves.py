"""The picture of a run's curves, and the losses and learning rates by step."""

from __future__ import annotations

import csv
import math
import time
from collections.abc import Mapping
from os import PathLike
from pathlib import Path
from typing import NamedTuple

import numpy as np
from PIL import Image

from effcap.trainers.engine.chart import Line, Mark, Panel, draw_chart
from effcap.trainers.engine.run_folder import SCORES
from effcap.trainers.options.training import VALIDATION_SCORES
from effcap.utils.files import replace_file, write_text_atomically

STEPS, PICTURE = "steps.csv", "curves.png"
COLUMNS = ("step", "epoch", "loss", "learning_rate")  # of steps.csv
SECONDS = 60.0  # between two pictures within an epoch
MAX_POINTS = 2000  # of the losses by step, which are averaged over more steps in longer runs
BLUE, LIGHT_BLUE, ORANGE, GREEN = "#1f77b4", "#a6cbe3", "#e06c00", "#2a8f3c"


class CurveWriter:
    """Records losses and learning rates by step in steps.csv and draws curves.png; a `LogWriter`.

    The picture is drawn after each epoch, and about once per minute within an epoch.

    Args:
        folder: run folder.
        step: step that the run starts from. Rows that an interrupted run wrote after it are
            removed.
        steps_per_epoch: number of steps of an epoch.
    """

    def __init__(self, folder: Path, step: int, steps_per_epoch: int) -> None:
        self.folder, self.steps_per_epoch = folder, steps_per_epoch
        rows = [step_row(*row) for row in read_steps(folder) if row[0] <= step]
        write_text_atomically(folder / STEPS, "".join([f"{','.join(COLUMNS)}\n", *rows]))
        self._drawn = time.monotonic()

    def write_scalars(self, scalars: Mapping[str, float], step: int) -> None:
        """Adds the loss of a step."""
        loss = scalars.get("step/loss")
        if loss is None:
            return
        with (self.folder / STEPS).open("a", encoding="utf-8") as file:
            rate = scalars.get("step/learning_rate", math.nan)
            file.write(step_row(step, step / self.steps_per_epoch, loss, rate))
        if time.monotonic() - self._drawn >= SECONDS:
            self.flush()

    def write_caption(self, name: str, caption: str, photo: Image.Image | None, step: int) -> None:
        """Does nothing."""

    def flush(self) -> None:
        """Draws the picture."""
        new = self.folder / f".new-{PICTURE}"
        plot_curves(self.folder).save(new, "PNG")
        replace_file(new, self.folder / PICTURE)
        self._drawn = time.monotonic()

    def close(self, failed: bool) -> None:
        """Does nothing, because the files are complete after each call."""


def plot_curves(run_folder: str | PathLike[str]) -> Image.Image:
    """Draws the losses of a run, and its validation CIDEr and rewards if there are any.

    The best epoch, whose preset is `best`, is marked. A notebook shows the picture.

    Args:
        run_folder: folder of a run, finished or not.

    Raises:
        FileNotFoundError: there is no run in the folder.

    Example:
        >>> effcap.trainers.plot_curves("runs/mine")
    """
    folder = Path(run_folder)
    steps, epochs = read_steps(folder), read_epochs(folder)
    if not len(steps) and not epochs:
        raise FileNotFoundError(f"There is no run with {SCORES} or {STEPS} in {folder}")
    x = np.arange(1, len(next(iter(epochs.values()), [])) + 1)  # (E,)

    def line(label: str, name: str, color: str) -> list[Line]:
        return [Line(label, x, epochs[name], color)] if name in epochs else []

    panels = [
        Panel(
            "loss",
            [
                *_step_line(steps),
                *line("training", "loss", BLUE),
                *line("validation", "val_loss", ORANGE),
            ],
        )
    ]
    if "reward" in epochs:
        rewards = [*line("reward", "reward", BLUE), *line("baseline", "baseline", GREEN)]
        panels.append(Panel("reward", rewards))
    if "val_cider" in epochs:
        panels.append(Panel("validation CIDEr", line("", "val_cider", ORANGE)))
    x_max = max(1.0, *x, *steps[:, 1])
    return draw_chart(panels, "epoch", x_max, _best_mark(epochs))


def _step_line(steps: np.ndarray) -> list[Line]:
    """Returns a line of the losses by step, averaged over neighbors in long runs."""
    if not len(steps):
        return []
    means = average_rows(steps, MAX_POINTS)  # (N,4)
    return [Line("training, by step", means[:, 1], means[:, 2], LIGHT_BLUE, is_faint=True)]


def average_rows(rows: np.ndarray, max_rows: int) -> np.ndarray:
    """Returns means (M, C) of neighboring rows of (N, C), with M at most `max_rows`."""
    starts = np.arange(0, len(rows), max(1, -(-len(rows) // max_rows)))  # (M,)
    counts = np.diff(np.append(starts, len(rows)))  # (M,)
    return np.add.reduceat(rows, starts) / counts[:, None] if len(rows) else rows  # (M,C)


def _best_mark(epochs: Mapping[str, np.ndarray]) -> Mark | None:
    """Returns a mark of the epoch with the best validation score, if there are several epochs."""
    best = best_epoch(epochs)
    if best is None or best.num_epochs < 2:
        return None
    score = {"val_cider": "CIDEr", "val_cross_entropy": "cross-entropy"}[best.score]
    return Mark(best.epoch, f"best: epoch {best.epoch}, {score} {best.value:.3f}")


class BestEpoch(NamedTuple):
    """The epoch with the best validation score.

    Attributes:
        epoch: number of the epoch, from 1.
        score: name of the score.
        value: its value.
        num_epochs: number of epochs.
    """

    epoch: int
    score: str
    value: float
    num_epochs: int


def best_epoch(epochs: Mapping[str, np.ndarray]) -> BestEpoch | None:
    """Returns the epoch with the best validation score; None without validation.

    Args:
        epochs: scores of all epochs by name, as `read_epochs` returns them.
    """
    for name, sign in VALIDATION_SCORES:
        values = epochs.get(name, np.empty(0))  # (E,)
        if np.isfinite(values).any():
            index = int(np.nanargmax(sign * values))
            return BestEpoch(index + 1, name, float(values[index]), len(values))
    return None


def read_epochs(folder: Path) -> dict[str, np.ndarray]:
    """Returns the scores of all epochs by name, from log.csv; NaN for missing ones."""
    path = folder / SCORES
    if not path.is_file():
        return {}
    with path.open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    names = [name for name in (rows[0] if rows else ()) if name != "epoch"]
    return {name: np.array([float(row[name] or "nan") for row in rows]) for name in names}


def read_steps(folder: Path) -> np.ndarray:
    """Returns (N, 4) step, epoch, loss and learning rate from steps.csv, without damaged rows.

    Learning rates that are not recorded are NaN.
    """
    path = folder / STEPS
    text = path.read_text(encoding="utf-8", errors="replace") if path.is_file() else ""
    rows = []
    for line in text.split("\n")[1:-1]:  # a row without a line end is incomplete
        try:
            step, epoch, loss, *rates = map(float, line.split(","))
        except ValueError:
            continue
        if len(rates) <= 1:
            rows.append((step, epoch, loss, *(rates or [math.nan])))
    return np.array(rows, float).reshape(-1, len(COLUMNS))


def step_row(step: float, epoch: float, loss: float, learning_rate: float) -> str:
    """Returns a row of steps.csv."""
    return f"{step:.0f},{epoch:g},{loss:g},{learning_rate:g}\n"
