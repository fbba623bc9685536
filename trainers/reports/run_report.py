"""Writes the report of a run, report.html, from the files of its folder."""

from __future__ import annotations

import html
from collections.abc import Iterable
from os import PathLike
from pathlib import Path

from effcap.trainers.reports.caption_sections import caption_history, worst_captions
from effcap.trainers.reports.photo_cards import write_card_page
from effcap.trainers.reports.run_curves import run_panels
from effcap.trainers.reports.run_history import (
    FINISHED,
    RUNNING,
    STOPPED,
    RunHistory,
    read_run,
)
from effcap.trainers.reports.run_tables import command, data_table, environment, settings_tables
from effcap.trainers.reports.styles import REPORT_STYLE
from effcap.trainers.reports.svg_chart import CHART_STYLE, chart_figure
from effcap.trainers.reports.words import SCORE_NAMES, format_duration, format_score

REPORT = "report.html"
MAX_SCORES = 4  # tiles about scores


def write_run_report(run_folder: str | PathLike[str]) -> Path:
    """Writes the report of a run, finished or not, as one self-contained HTML page.

    It shows curves, captions of the same photos by epoch, the worst captions, the configuration,
    data, environment and times. Training writes it after each epoch; runs of earlier versions get
    what their folders hold.

    Args:
        run_folder: folder of a run.

    Returns:
        The path of the page, report.html in the folder.

    Raises:
        FileNotFoundError: there is no run in the folder.
        ValueError: a file of the run is damaged.

    Example:
        >>> effcap.trainers.write_run_report("runs/mine")
    """
    run = read_run(run_folder)
    path = run.folder / REPORT
    sections = [
        _tiles(run),
        _section("Curves", _curves(run)),
        _section("Captions by epoch", caption_history(run)),
        _section("Worst captions", worst_captions(run)),
        _section("Configuration", command(run) + settings_tables(run)),
        _section("Data", data_table(run)),
        _section("Environment", environment(run)),
    ]
    write_card_page(path, run.name, _note(run), "\n".join(sections), CHART_STYLE + REPORT_STYLE)
    return path


def _section(title: str, body: str) -> str:
    """Returns the HTML of a section; "" if it is empty."""
    return f"<section><h2>{html.escape(title)}</h2>{body}</section>" if body else ""


def _note(run: RunHistory) -> str:
    """Returns the line below the title."""
    done, planned = run.num_epochs, run.planned_epochs
    epochs = f"{done} of {planned} epochs" if planned else f"{done} epochs"
    written = run.notes.get("written", "")
    states = {
        FINISHED: f"finished after {done} epoch{'' if done == 1 else 's'}",
        RUNNING: f"in training, {epochs} finished as of {written}",
        STOPPED: f"stopped on {written}, {epochs} finished; --resume continues it",
    }
    state = states.get(run.state, f"not finished, {epochs}")
    return " · ".join(filter(None, (run.model, run.objective, state)))


def _tiles(run: RunHistory) -> str:
    """Returns the HTML of the scores of the best epoch, the time and the speed."""
    shown = run.shown_epoch
    tiles: list[tuple[str, str, str]] = []
    if run.best and run.num_epochs > 1:
        by = SCORE_NAMES[run.best.score].partition(" ")[2]
        tiles.append(("best epoch", str(shown), f"of {run.num_epochs}, by {by}"))
    for name in ("val_cider", "val_cross_entropy", "val_loss", "reward", "cross_entropy", "loss"):
        value = run.score(name, shown)
        if value is not None and len(tiles) < MAX_SCORES:
            split, _, label = SCORE_NAMES[name].partition(" ")
            note = f"{split}, epoch {shown}" if label else f"epoch {shown}"
            tiles.append((label or split, format_score(name, value), note))
    seconds = run.seconds
    if seconds is not None:
        each = f"{format_duration(seconds / run.num_epochs)} per epoch" if run.num_epochs else ""
        tiles.append(("time", format_duration(seconds), each))
    speeds = [
        note["images_per_second"]
        for note in run.notes.get("epochs", ())
        if "images_per_second" in note
    ]
    if speeds:
        tiles.append(("speed", f"{speeds[-1]:,.0f}", "images per second in training"))
    return _tiles_html(tiles)


def _tiles_html(tiles: Iterable[tuple[str, str, str]]) -> str:
    cells = "".join(
        f'<div class="tile"><dt>{html.escape(name)}</dt><dd>{html.escape(value)}'
        f"<small>{html.escape(note)}</small></dd></div>"
        for name, value, note in tiles
    )
    return f'<dl class="tiles">{cells}</dl>' if cells else ""


def _curves(run: RunHistory) -> str:
    """Returns the HTML of the charts."""
    panels = run_panels(run)
    x_max = max([1.0, float(run.num_epochs), *run.steps[:, 1].tolist()])
    marks = [run.best.epoch] if run.best and run.num_epochs > 1 else []
    charts = "".join(chart_figure(panel, x_max, marks) for panel in panels)
    if not charts:
        return '<p class="none">No step has been recorded yet.</p>'
    note = f'<p class="hint">By epoch. Dashed: the best epoch, {marks[0]}.</p>' if marks else ""
    return f'{note}<div class="charts">{charts}</div>'
