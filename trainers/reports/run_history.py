"""Reads the folder of a run: its configuration, scores, captions and times."""

from __future__ import annotations

import json
import math
import operator
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from os import PathLike
from pathlib import Path
from typing import Any

import numpy as np

from effcap.images import UnreadablePhoto, load_thumbnail
from effcap.trainers.engine.curves import BestEpoch, best_epoch, read_epochs, read_steps
from effcap.trainers.engine.run_folder import RUN, SCORES
from effcap.trainers.options.run import flatten

NOTES = "report.json"  # captions and times by epoch
THUMBNAILS = "thumbnails"  # folder of the photos shown
FINISHED, RUNNING, STOPPED, UNKNOWN = "finished", "running", "stopped", "unfinished"


@dataclass(frozen=True)
class RunHistory:
    """What a run folder holds; `read_run` returns it.

    Attributes:
        folder: run folder.
        record: contents of run.json.
        epochs: scores of all epochs by name, as `read_epochs` returns them.
        steps: (N, 4) step, epoch, loss and learning rate.
        notes: contents of report.json; empty for runs that have none.
    """

    folder: Path
    record: Mapping[str, Any]
    epochs: Mapping[str, np.ndarray]
    steps: np.ndarray
    notes: Mapping[str, Any] = field(default_factory=dict)

    @property
    def name(self) -> str:
        """Name of the run folder."""
        return self.folder.name or self.folder.absolute().name

    @property
    def model(self) -> str:
        """Variant or preset that was trained; "" if it is not recorded."""
        model = self.record.get("model") or self.record.get("config", {}).get("model")
        return str(model or "")

    @property
    def objective(self) -> str:
        """Training objective."""
        return str(self.record.get("objective", ""))

    @property
    def num_epochs(self) -> int:
        """Number of finished epochs."""
        return len(next(iter(self.epochs.values()), ()))

    @property
    def planned_epochs(self) -> int | None:
        """Number of epochs that the run would have without an early stop, if it is recorded."""
        return self.notes.get("num_epochs")

    @property
    def best(self) -> BestEpoch | None:
        """Epoch with the best validation score; None without validation."""
        return best_epoch(self.epochs)

    @property
    def shown_epoch(self) -> int:
        """The best epoch, or without validation the last one; 0 if none is finished."""
        return self.best.epoch if self.best else self.num_epochs

    @property
    def state(self) -> str:
        """State of the run: finished, running, stopped, or unfinished if it is not recorded."""
        return FINISHED if "finished" in self.record else self.notes.get("state", UNKNOWN)

    @property
    def seconds(self) -> float | None:
        """Duration of the run over all its sessions; None if it is not recorded."""
        return self.notes.get("seconds")

    def score(self, name: str, epoch: int) -> float | None:
        """Returns a score of an epoch, counted from 1; None if it is missing."""
        values = self.epochs.get(name, ())
        value = float(values[epoch - 1]) if 0 < epoch <= len(values) else math.nan
        return value if math.isfinite(value) else None

    def settings(self) -> dict[str, Any]:
        """Returns the settings of the model and the training, and other options, by dotted name."""
        record = self.record
        sections = {
            **record.get("hparams", {}),
            **{name: record[name] for name in ("scst", "adapters") if name in record},
        }
        options = {
            name: record[name]
            for name in ("objective", "prefix", "train_fraction")
            if name in record
        }
        return {"model": self.model, **options, **dict(flatten(sections))}

    def captions(self) -> Iterator[tuple[int, list[str]]]:
        """Yields the number of each epoch, and its captions of the photos in `notes`."""
        for epoch in self.notes.get("epochs", ()):
            yield epoch["epoch"], epoch["captions"]

    def thumbnail(self, photo: Mapping[str, Any]) -> bytes | None:
        """Returns the JPEG of a photo in `notes`; None if it has none, or a damaged one."""
        if not photo.get("thumbnail"):
            return None
        return read_thumbnail(self.folder / THUMBNAILS / photo["thumbnail"])


def read_thumbnail(path: Path) -> bytes | None:
    """Returns the contents of the JPEG of a photo; None if it is missing or damaged."""
    try:
        jpeg = path.read_bytes()
        load_thumbnail(jpeg, (8, 8))
    except (OSError, UnreadablePhoto):
        return None
    return jpeg


def read_run(run_folder: str | PathLike[str]) -> RunHistory:
    """Reads the folder of a run, finished or not.

    Raises:
        FileNotFoundError: there is no run in the folder.
        ValueError: a file of the run is damaged.
    """
    folder = Path(run_folder)
    if not (folder / RUN).is_file():
        hint = ""
        if (folder.parent / RUN).is_file():
            hint = f"; the run of this preset is in {folder.parent}"
        raise FileNotFoundError(
            f"There is no run in {folder}: expected the folder of a run of `effcap train`, with "
            f"{RUN}{hint}"
        )
    record, notes = _read_json(folder / RUN), {}
    if (folder / NOTES).is_file():
        notes = _read_json(folder / NOTES)
        try:
            check_notes(notes)
        except (KeyError, TypeError, AttributeError) as error:
            raise ValueError(
                f"Expected epochs and photos in {folder / NOTES}. Received: other entries"
            ) from error
    try:
        epochs = read_epochs(folder)
    except (ValueError, TypeError, KeyError, UnicodeDecodeError) as error:
        raise ValueError(
            f"Expected a table of scores in {folder / SCORES}. Received: {error}"
        ) from error
    return RunHistory(folder, record, epochs, read_steps(folder), notes)


def check_notes(notes: Mapping[str, Any]) -> None:
    """Checks that the contents of report.json have the entries that pages show.

    Raises:
        KeyError, TypeError, AttributeError: they do not.
    """
    for epoch in notes.get("epochs", []):
        operator.index(epoch["epoch"]), [text.strip() for text in epoch["captions"]]
    worst = notes.get("worst") or {"photos": [], "epoch": 0, "num_photos": 0}
    operator.index(worst["epoch"]), operator.index(worst["num_photos"])
    notes.get("seconds", 0.0) + 0.0
    for photo in notes.get("photos", []):
        photo["name"].strip()
    for photo in worst["photos"]:
        photo["name"].strip(), photo["caption"].strip(), float(photo["cider"]), photo["references"]


def _read_json(path: Path) -> dict[str, Any]:
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
    except (ValueError, RecursionError) as error:
        raise ValueError(f"Expected JSON in {path}. Received: {error}") from error
    if not isinstance(values, dict):
        raise ValueError(f"Expected a JSON object in {path}. Received: {type(values).__name__}")
    return values
