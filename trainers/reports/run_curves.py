"""The charts of a run."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from effcap.trainers.engine.chart import Line, Panel
from effcap.trainers.engine.curves import average_rows
from effcap.trainers.reports.run_history import RunHistory
from effcap.trainers.reports.svg_chart import series_color, series_dash

MAX_POINTS = 400  # of a line by step
# Charts of scores by epoch: the title, and the names of scores with their labels.
CHARTS = (
    ("Loss", (("loss", "training"), ("val_loss", "validation"))),
    ("Cross-entropy", (("cross_entropy", "training"), ("val_cross_entropy", "validation"))),
    ("CIDEr", (("val_cider", "validation"),)),
    ("Reward", (("reward", "samples"), ("baseline", "baseline"))),
    ("N-pair loss", (("npair", "training"),)),
    ("Distinct captions", (("distinct", "samples in training"), ("val_distinct", "validation"))),
    ("Length of samples in tokens", (("length", "training"),)),
)
COLOR_OF_LABEL = {"validation": 1}  # the same color in all charts


def run_panels(run: RunHistory) -> list[Panel]:
    """Returns the charts of a run that have values, the learning rate last."""
    panels = []
    x = np.arange(1, run.num_epochs + 1)  # (E,)
    rows = average_rows(run.steps, MAX_POINTS)  # (N,4)
    for title, scores in CHARTS:
        lines = [
            Line(label, x, run.epochs[name], series_color(COLOR_OF_LABEL.get(label, 2 * i)))
            for i, (name, label) in enumerate(scores)
            if name in run.epochs
        ]
        if title == "Loss" and len(rows):
            by_step = Line("by step", rows[:, 1], rows[:, 2], series_color(0), is_faint=True)
            lines.insert(0, by_step)
        if lines:
            panels.append(Panel(title, lines))
    if np.isfinite(rows[:, 3]).any():
        rate = Line("", rows[:, 1], rows[:, 3], series_color(3))
        panels.append(Panel("Learning rate", [rate]))
    return panels


def comparison_panels(
    runs: Sequence[RunHistory], names: Sequence[str], hidden: Sequence[str] = ()
) -> list[Panel]:
    """Returns charts with a line for each run.

    Args:
        runs: runs to compare.
        names: names of the runs.
        hidden: names of scores to leave out.
    """
    panels = []
    for title, scores in CHARTS:
        for score, label in scores:
            lines = [
                Line(
                    name,
                    np.arange(1, run.num_epochs + 1),
                    run.epochs[score],
                    series_color(number),
                    dash=series_dash(number),
                )
                for number, (run, name) in enumerate(zip(runs, names, strict=True))
                if score in run.epochs
            ]
            if lines and score not in hidden:
                panels.append(Panel(f"{title}, {label}" if len(scores) > 1 else title, lines))
    return panels
