"""The folder of a run.

run.json       configuration: options, command, versions, data; the final scores once finished
log.txt        messages with their time
log.csv        scores, one line per epoch
steps.csv      training loss and learning rate, one line per ten steps
curves.png     picture of both, with the best epoch marked
report.html    curves, captions by epoch, the worst captions and the configuration, as a page
report.json    captions and times by epoch, which report.html shows
thumbnails/    photos that report.html shows
best/, last/   presets
tensorboard/   curves, and captions under their photos (--log tensorboard)
wandb_id.txt   id of the run in Weights & Biases (--log wandb)
checkpoint.h5  state of the run, until it is finished
"""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Callable, Mapping
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from effcap.presets import BEST
from effcap.trainers.options.run import CHECKPOINT, LAST
from effcap.utils.files import write_text_atomically
from effcap.utils.progress import print_line

if TYPE_CHECKING:
    from effcap.captioner import Captioner
    from effcap.trainers.engine.checkpoint import TrainState

RUN, LOG, SCORES = "run.json", "log.txt", "log.csv"


class RunFolder:
    """Writes the files of a run; the folder is created with the first one.

    Args:
        path: path of the folder.
        base: preset that the captioner's adapter was added to. The presets of the run then hold the
            adapter alone. None to save the whole captioner.
        is_writer: whether this process writes and prints; only the main process does.
    """

    def __init__(self, path: Path, base: Path | None = None, *, is_writer: bool = True) -> None:
        self.path, self.base, self.is_writer = path, base, is_writer
        self.record: dict[str, Any] = {}

    @property
    def tensorboard(self) -> Path:
        """Folder of the event files."""
        return self.path / "tensorboard"

    @property
    def checkpoint(self) -> Path:
        """File of the checkpoint."""
        return self.path / CHECKPOINT

    def is_finished(self) -> bool:
        """Returns whether the folder holds a finished run."""
        try:
            return "finished" in json.loads((self.path / RUN).read_text(encoding="utf-8"))
        except (OSError, ValueError, TypeError):
            return False

    def log(self, line: str, print_line: Callable[[str], None] = print_line) -> None:
        """Prints a line and adds it to log.txt."""
        if self.is_writer:
            print_line(line)
            self._append(line)

    def begin(self, record: Mapping[str, Any], state: TrainState) -> None:
        """Writes run.json and the start of the log.

        Args:
            record: configuration of the run, also for the presets' training.json.
            state: state that the run starts from.
        """
        self.record = dict(record)
        if not self.is_writer:
            return
        self.write(RUN, _to_json(self.record))
        if state.step:
            self.log(f"resuming after step {state.step}, in epoch {state.epoch + 1}")
        self._append(f"command: {self.record.get('command') or 'none (started from Python)'}")
        versions = self.record.get("versions", {})
        self._append(", ".join(f"{name} {version}" for name, version in versions.items()))

    def save(self, captioner: Captioner, state: TrainState, is_best: bool) -> None:
        """Saves the preset `last`, `best` if it is the best, and the scores of all epochs."""
        if not self.is_writer:
            return
        record = {**self.record, "epoch": state.epoch, "scores": state.history[-1]}
        for name in (LAST, BEST) if is_best else (LAST,):
            captioner.save_to_preset(self.path / name, record=record, base=self.base)
        names = list(dict.fromkeys(name for scores in state.history for name in scores))
        table = io.StringIO()
        writer = csv.DictWriter(table, ["epoch", *names], lineterminator="\n")
        writer.writeheader()
        writer.writerows({"epoch": i, **scores} for i, scores in enumerate(state.history, 1))
        self.write(SCORES, table.getvalue())

    def finish(self, state: TrainState) -> None:
        """Records that the run is finished."""
        if not self.is_writer:
            return
        scores = state.history[-1]
        finished = {"epochs": state.epoch, "steps": state.step, "scores": scores}
        self.write(RUN, _to_json({**self.record, "finished": finished}))
        self._append(f"finished after {state.epoch} epochs, {state.step} steps")

    def write(self, name: str, text: str) -> None:
        """Writes a text file of the folder."""
        if self.is_writer:
            self.path.mkdir(parents=True, exist_ok=True)
            write_text_atomically(self.path / name, text)

    def _append(self, line: str) -> None:
        self.path.mkdir(parents=True, exist_ok=True)
        with (self.path / LOG).open("a", encoding="utf-8", errors="backslashreplace") as file:
            file.write(f"{datetime.now():%Y-%m-%d %H:%M:%S}  {line}\n")


def _to_json(value: Any) -> str:
    return json.dumps(value, indent=2) + "\n"
