"""Compares training runs: their best scores, differing settings and times."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from effcap.trainers.reports.run_history import FINISHED, RunHistory, read_run
from effcap.trainers.reports.words import SCORE_NAMES, format_duration, format_score

# Scores of the compared epochs, and whether higher is better.
SCORES = {
    "val_cider": True,
    "val_cross_entropy": False,
    "val_loss": False,
    "val_distinct": True,
    "reward": True,
    "cross_entropy": False,
    "loss": False,
}
LOSSES = ("val_loss", "loss")  # depend on the objective and its settings
# Options that do not affect the result, and `--set`, whose settings are compared by name.
ENVIRONMENT = ("versions", "machine")
OTHER_OPTIONS = ("set", "out", "log", "process-index", "coordinator")


@dataclass(frozen=True)
class RunComparison:
    """Runs side by side; `compare_runs` returns it.

    Attributes:
        runs: the runs, in the order given.
        names: names of the runs, all different.
        scores: scores by name, of each run's best epoch, or without validation of its last; None
            where a run has none.
        differences: settings that differ by dotted name, with the value of each run; None where it
            has none.
        notes: sentences on what limits the comparison, such as unfinished runs.
    """

    runs: Sequence[RunHistory]
    names: Sequence[str]
    scores: Mapping[str, Sequence[float | None]]
    differences: Mapping[str, Sequence[Any]]
    notes: Sequence[str]

    def best(self, score: str) -> set[int]:
        """Returns the indices of the runs with the best value of a score, if there are several."""
        values = [math.nan if x is None else round(x, 6) for x in self.scores[score]]
        known = [value for value in values if math.isfinite(value)]
        if len(known) < 2 or min(known) == max(known) or not self.is_comparable(score):
            return set()
        best = max(known) if SCORES[score] else min(known)
        return {i for i, value in enumerate(values) if value == best}

    def is_comparable(self, score: str) -> bool:
        """Returns whether a score means the same in all runs that have it."""
        if score.startswith("val_") and _num_validations(self.runs) > 1:
            return False
        return score not in LOSSES or len({_loss_settings(run) for run in self.runs}) == 1

    def columns(self) -> dict[str, list[str]]:
        """Returns texts by heading, one for each run: scores, the epoch they are of, and times."""
        columns = {
            SCORE_NAMES[score]: ["–" if x is None else format_score(score, x) for x in values]
            for score, values in self.scores.items()
        }
        epochs = [
            f"{run.shown_epoch} of {run.num_epochs}" if run.num_epochs else "–" for run in self.runs
        ]
        times = ["–" if run.seconds is None else format_duration(run.seconds) for run in self.runs]
        return {**columns, "epoch": epochs, "time": times}


def make_comparison(paths: Sequence[Path]) -> RunComparison:
    """Reads and compares runs; see `compare_runs`."""
    if len(paths) < 2:
        raise ValueError(f"Expected two or more runs. Received: {len(paths)}")
    for i, path in enumerate(paths):
        if any(path.resolve() == other.resolve() for other in paths[:i]):
            raise ValueError(f"Expected different runs. Received: {path} twice")
    runs = [read_run(path) for path in paths]
    names = _names(paths)
    return RunComparison(runs, names, _scores(runs), _differences(runs), _notes(runs, names))


def _names(paths: Sequence[Path]) -> list[str]:
    """Returns the folders' names, with as many parents as make them different."""
    parts = [path.resolve().parts for path in paths]
    for count in range(1, max(map(len, parts)) + 1):
        names = ["/".join(part[-count:]) for part in parts]
        if len(set(names)) == len(names):
            return names
    return [str(path) for path in paths]


def _scores(runs: Sequence[RunHistory]) -> dict[str, list[float | None]]:
    scores = {name: [run.score(name, run.shown_epoch) for run in runs] for name in SCORES}
    return {name: values for name, values in scores.items() if any(x is not None for x in values)}


def _differences(runs: Sequence[RunHistory]) -> dict[str, list[Any]]:
    settings = [_settings(run) for run in runs]
    names = dict.fromkeys(name for values in settings for name in values)
    columns = {name: [values.get(name) for values in settings] for name in names}
    differences = {}
    for name, values in columns.items():
        is_known = not name.startswith(ENVIRONMENT)  # runs of earlier versions did not record it
        known = [value for value in values if is_known or value is not None]
        if any(value != known[0] for value in known[1:]):
            differences[name] = values
    return differences


def _settings(run: RunHistory) -> dict[str, Any]:
    """Returns settings, options, numbers of photos, versions and machine by dotted name."""
    settings = run.settings()
    short_names = {name.rpartition(".")[2] for name in settings}
    options = {
        f"--{name}": " ".join(map(str, value)) if isinstance(value, list) else value
        for name, value in run.record.get("config", {}).items()
        if name not in OTHER_OPTIONS and name.replace("-", "_") not in short_names
    }
    others = {
        f"{section}.{name}": value
        for section in ENVIRONMENT
        for name, value in run.record.get(section, {}).items()
    }
    counts = {
        f"data.{name}.{key}": value
        for name, numbers in run.record.get("data", {}).items()
        for key, value in numbers.items()
        if key != "padding"
    }
    return {**settings, **options, **counts, **others}


def _notes(runs: Sequence[RunHistory], names: Sequence[str]) -> list[str]:
    notes = []
    for run, name in zip(runs, names, strict=True):
        if run.state != FINISHED:
            planned = f" of {run.planned_epochs}" if run.planned_epochs else ""
            notes.append(f"{name} is not finished: {run.num_epochs}{planned} epochs.")
        if run.num_epochs and run.best is None:
            notes.append(f"{name} has no validation: its scores are those of its last epoch.")
    if len({run.objective for run in runs}) > 1:
        notes.append("The objectives differ: the losses cannot be compared.")
    elif len({_loss_settings(run) for run in runs}) > 1:
        notes.append("label_smoothing or npair_weight differ: the losses cannot be compared.")
    if _num_validations(runs) > 1:
        notes.append("The validation data differ: the validation scores cannot be compared.")
    if len({_training(run, "tokenization") for run in runs if run.best}) > 1:
        notes.append("The tokenization differs: CIDEr counts other words in each.")
    return notes


def _num_validations(runs: Sequence[RunHistory]) -> int:
    """Returns the number of different validation data, told apart by their sizes."""
    data = [run.record.get("data", {}).get("validation") for run in runs]
    return len({(counts["photos"], counts["captions"]) for counts in data if counts})


def _loss_settings(run: RunHistory) -> tuple[Any, ...]:
    """Returns the settings that the loss depends on."""
    return (run.objective, *(_training(run, name) for name in ("label_smoothing", "npair_weight")))


def _training(run: RunHistory, name: str) -> Any:
    return run.record.get("hparams", {}).get("training", {}).get(name)
