"""The configuration, the data and the environment of a run as HTML."""

from __future__ import annotations

import html
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from effcap.trainers.reports.run_history import RunHistory
from effcap.trainers.reports.words import format_duration, format_setting

# Files of the run folder that list what was left out, by name of the data.
PROBLEM_FILES = ("left_out_{}.txt", "skipped_{}.tsv")


def command(run: RunHistory) -> str:
    """Returns the HTML of the command that started the run."""
    text = run.record.get("command") or "started from Python"
    return f"<pre>{html.escape(text)}</pre>"


def settings_tables(run: RunHistory) -> str:
    """Returns the HTML of all settings by section; those that were changed are marked."""
    changed = run.record.get("changed", {})
    sections: dict[str, list[str]] = {}
    for name, value in run.settings().items():
        section, _, short = name.rpartition(".")
        section, short = (section or "run"), short or name
        sections.setdefault(section, []).append(
            _setting(short, value, name in changed, changed.get(name))
        )
    tables = "".join(
        f"<div class='settings'><h3>{html.escape(section)}</h3><table>{''.join(rows)}</table></div>"
        for section, rows in sections.items()
    )
    if not tables:
        return ""
    hint = '<p class="hint">Highlighted: changed from the default.</p>' if changed else ""
    return f'{hint}<div class="columns">{tables}</div>'


def _setting(name: str, value: Any, is_changed: bool, default: Any) -> str:
    """Returns the HTML of a row."""
    text = html.escape(format_setting(value))
    if default is not None:
        text += f" <small>default {html.escape(format_setting(default))}</small>"
    kind = ' class="changed"' if is_changed else ""
    return f"<tr{kind}><th>{html.escape(name)}</th><td>{text}</td></tr>"


def data_table(run: RunHistory) -> str:
    """Returns the HTML of the numbers of photos and captions, used and left out."""
    data: Mapping[str, Mapping[str, float]] = run.record.get("data", {})
    if not data:
        return ""
    names = {
        "photos": "photos per epoch",
        "captions": "captions",
        "left_out": "captions left out",
        "padding": "padding",
    }
    rows = []
    for name, counts in data.items():
        cells = [_count(key, counts.get(key)) for key in names]
        files = [
            file
            for pattern in PROBLEM_FILES
            if (run.folder / (file := pattern.format(name))).is_file()
        ]
        rows.append([name, *cells, ", ".join(map(_listing(run.folder), files)) or "–"])
    return table(["data", *names.values(), "problems are listed in"], rows)


def _count(key: str, value: float | None) -> str:
    if value is None:
        return "–"
    return f"{value:.1%}" if key == "padding" else f"{value:,}"


def _listing(folder: Path) -> Any:
    """Returns a function that describes a file of the run folder with a problem per line."""

    def describe(file: str) -> str:
        with (folder / file).open("rb") as lines:
            return f"{file} ({sum(1 for _ in lines):,})"

    return describe


def environment(run: RunHistory) -> str:
    """Returns the HTML of the versions, the device and the times."""
    versions = run.record.get("versions", {})
    machine = run.record.get("machine", {})
    rows = [["versions", ", ".join(f"{name} {version}" for name, version in versions.items())]]
    rows += [[name, str(value)] for name, value in machine.items()]
    if run.notes.get("started"):
        rows.append(["started", run.notes["started"]])
        rows.append(["last report", run.notes.get("written", "")])
    if run.seconds is not None:
        rows.append(["time, of all sessions", format_duration(run.seconds)])
    return table([], [row for row in rows if row[1]])


def table(headings: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """Returns the HTML of a table of text, whose first column names the rows."""
    head = "".join(f"<th>{html.escape(text)}</th>" for text in headings)
    body = "".join(
        f"<tr><th>{html.escape(name)}</th>"
        + "".join(f"<td>{html.escape(cell)}</td>" for cell in cells)
        + "</tr>"
        for name, *cells in rows
    )
    head = f"<thead><tr>{head}</tr></thead>" if head else ""
    return f'<div class="wide"><table>{head}<tbody>{body}</tbody></table></div>' if body else ""
