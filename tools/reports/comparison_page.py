"""Writes a comparison of runs as one self-contained HTML page."""

from __future__ import annotations

import html
from pathlib import Path
from typing import Any

from effcap.tools.reports.run_comparison import LOSSES, RunComparison
from effcap.trainers.reports.caption_sections import photo_html, references_html
from effcap.trainers.reports.photo_cards import caption_html, write_card_page
from effcap.trainers.reports.run_curves import comparison_panels
from effcap.trainers.reports.run_history import RunHistory
from effcap.trainers.reports.run_tables import table
from effcap.trainers.reports.styles import REPORT_STYLE
from effcap.trainers.reports.svg_chart import CHART_STYLE, chart_figure, series_swatch
from effcap.trainers.reports.words import format_setting

STYLE = ".chart strong { flex-basis: 100%; }\n"  # the legend of many runs has its own lines


def write_comparison_page(comparison: RunComparison, path: Path) -> None:
    """Writes the page.

    Args:
        comparison: compared runs.
        path: HTML file; missing folders are created.
    """
    sections = [
        _notes(comparison),
        _section("Scores", "Of the best epoch of each run.", _scores(comparison)),
        _section("Curves", "By epoch.", _charts(comparison)),
        _section("Settings that differ", "", _differences(comparison)),
        _section("Captions", "Of the best epoch of each run.", _captions(comparison)),
    ]
    title = f"Comparison of {len(comparison.runs)} runs"
    note = " · ".join(comparison.names)
    write_card_page(path, title, note, "\n".join(sections), CHART_STYLE + REPORT_STYLE + STYLE)


def _section(title: str, hint: str, body: str) -> str:
    note = f'<p class="hint">{html.escape(hint)}</p>' if hint else ""
    return f"<section><h2>{html.escape(title)}</h2>{note}{body}</section>" if body else ""


def _notes(comparison: RunComparison) -> str:
    items = "".join(f"<li>{html.escape(note)}</li>" for note in comparison.notes)
    return f'<ul class="notes">{items}</ul>' if items else ""


def _run_name(comparison: RunComparison, i: int) -> str:
    """Returns the HTML of a run's name with its color."""
    return f'<span class="key">{series_swatch(i)}{html.escape(comparison.names[i])}</span>'


def _scores(comparison: RunComparison) -> str:
    columns = comparison.columns()
    best = [comparison.best(score) for score in comparison.scores]
    head = "".join(f"<th>{html.escape(name)}</th>" for name in ("run", *columns))
    body = []
    for i in range(len(comparison.runs)):
        cells = []
        for number, texts in enumerate(columns.values()):
            is_best = number < len(best) and i in best[number]
            text = html.escape(texts[i])
            cells.append(f"<td>{f'<b>{text}</b>' if is_best else text}</td>")
        body.append(f"<tr><th>{_run_name(comparison, i)}</th>{''.join(cells)}</tr>")
    return (
        f'<div class="wide scores"><table><thead><tr>{head}</tr></thead>'
        f"<tbody>{''.join(body)}</tbody></table></div>"
    )


def _charts(comparison: RunComparison) -> str:
    hidden = [score for score in LOSSES if not comparison.is_comparable(score)]
    panels = comparison_panels(comparison.runs, comparison.names, hidden)
    x_max = max([1.0, *(float(run.num_epochs) for run in comparison.runs)])
    charts = "".join(chart_figure(panel, x_max) for panel in panels)
    return f'<div class="charts">{charts}</div>' if charts else ""


def _differences(comparison: RunComparison) -> str:
    rows = [
        [name, *("–" if value is None else format_setting(value) for value in values)]
        for name, values in comparison.differences.items()
    ]
    return table(["setting", *comparison.names], rows) or '<p class="none">None.</p>'


def _captions(comparison: RunComparison) -> str:
    """Returns the HTML of the photos that two or more runs captioned, with all their captions."""
    photos: dict[tuple[Any, ...], tuple[RunHistory, Any]] = {}
    captions: dict[tuple[Any, ...], dict[int, str]] = {}
    for i, run in enumerate(comparison.runs):
        texts = dict(run.captions()).get(run.shown_epoch, [])
        for photo, text in zip(run.notes.get("photos", ()), texts, strict=False):
            key = (photo["name"], photo.get("prefix"), *photo.get("references", ()))
            if key not in photos or run.thumbnail(photo) is not None:
                photos[key] = (run, photo)
            captions.setdefault(key, {})[i] = text
    cards = []
    for key, texts_of_runs in captions.items():
        if len(texts_of_runs) > 1:
            run, photo = photos[key]
            rows = "".join(
                f"<div><dt>{_run_name(comparison, i)}</dt>"
                f'<dd dir="auto">{caption_html(text)}</dd></div>'
                for i, text in texts_of_runs.items()
            )
            image = photo_html(run, photo, next(iter(texts_of_runs.values())))
            cards.append(
                f'<figure>{image}<figcaption><p class="name">{html.escape(photo["name"])}</p>'
                f"<dl>{rows}</dl>{references_html(photo)}</figcaption></figure>"
            )
    return f'<div class="cards">{"".join(cards)}</div>' if cards else ""
