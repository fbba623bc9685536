"""The folder of a run, and what is kept there.

run.json      how the run came about: options, command, versions, data; its end, when it came
log.txt       what was said, with the time
log.csv       scores, a line per epoch
best/, last/  presets
tensorboard/  curves, and captions under their photos
checkpoint.h5 where the run stands, until it has ended
"""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Callable, Mapping
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from effcap import presets
from effcap.presets import BEST
from effcap.utils.files import write_text_atomically
from effcap.utils.progress import say

if TYPE_CHECKING:
    from effcap.captioner import Captioner
    from effcap.trainers.engine.checkpoint import Position

RUN, LOG, SCORES = "run.json", "log.txt", "log.csv"
LAST, CHECKPOINT = "last", "checkpoint.h5"


class RunFolder:
    """Writes a run folder.

    Args:
        path: where; made if missing.
        record: how the run came about.
        writes: whether this process does; of several that train together, one does and tells.
    """

    def __init__(self, path: Path, record: Mapping[str, Any], *, writes: bool = True):
        self.path, self.record, self.writes = path, dict(record), writes
        if writes:
            path.mkdir(parents=True, exist_ok=True)

    @property
    def tensorboard(self) -> Path:
        """Folder of the event files."""
        return self.path / "tensorboard"

    @property
    def checkpoint(self) -> Path:
        """File of the checkpoint."""
        return self.path / CHECKPOINT

    def say(self, line: str, tell: Callable[[str], None] = say) -> None:
        """Tells people, and the log."""
        if not self.writes:
            return
        tell(line)
        note(self.path, line)

    def begin(self, position: Position) -> None:
        """Writes how the run came about, and that it begins or goes on."""
        if not self.writes:
            return
        _write_json(self.path / RUN, self.record)
        if position.steps:
            self.say(f"going on after step {position.steps}, in epoch {position.epoch + 1}")
        note(self.path, f"command: {self.record.get('command') or 'none: started from Python'}")
        versions = self.record.get("versions", {})
        note(self.path, ", ".join(f"{name} {version}" for name, version in versions.items()))

    def save(self, captioner: Captioner, position: Position, is_best: bool) -> None:
        """Saves the captioner as `last`, and as `best` when it is; the scores as a table."""
        if not self.writes:
            return
        scores = position.history[-1]
        record = {**self.record, "epoch": position.epoch, "scores": scores}
        for name in (LAST, BEST) if is_best else (LAST,):
            presets.save(captioner, self.path / name, record=record)
        names = list(dict.fromkeys(name for row in position.history for name in row))
        table = io.StringIO()
        writer = csv.DictWriter(table, ["epoch", *names], lineterminator="\n")
        writer.writeheader()
        writer.writerows({"epoch": i, **row} for i, row in enumerate(position.history, 1))
        write_text_atomically(self.path / SCORES, table.getvalue())

    def finish(self, position: Position) -> None:
        """Takes down that the run has ended."""
        if not self.writes:
            return
        ended = {"epochs": position.epoch, "steps": position.steps, "scores": position.history[-1]}
        _write_json(self.path / RUN, {**self.record, "finished": ended})
        note(self.path, f"finished after {position.epoch} epochs, {position.steps} steps")


def finished(path: Path) -> bool:
    """Whether the folder's run has come to its end."""
    try:
        return "finished" in json.loads((path / RUN).read_text(encoding="utf-8"))
    except (OSError, ValueError, TypeError):
        return False


def note(path: Path, line: str) -> None:
    """Adds lines to the log in the folder, with the time."""
    path.mkdir(parents=True, exist_ok=True)
    with (path / LOG).open("a", encoding="utf-8", errors="backslashreplace") as file:
        file.write(f"{datetime.now():%Y-%m-%d %H:%M:%S}  {line}\n")


def _write_json(path: Path, contents: Any) -> None:
    write_text_atomically(path, json.dumps(contents, indent=2) + "\n")
