"""Draws line charts as SVG, to embed in HTML pages."""

from __future__ import annotations

import html
import math
from collections.abc import Sequence

from effcap.trainers.engine.chart import Line, Panel, nice_ticks, y_range

WIDTH, HEIGHT = 440, 230  # in units of the drawing, which scales with the page
LEFT, RIGHT, TOP, BOTTOM = 52, 12, 10, 30  # margins of the axes
MAX_MARKERS = 40  # points of a line; longer lines have no markers

# After the palette of Okabe and Ito, which color-blind readers can tell apart: (light, dark).
COLORS = (
    ("#0072b2", "#5ab4e6"),
    ("#d55e00", "#f28e3c"),
    ("#008f68", "#3cc79d"),
    ("#b4548a", "#e58fc0"),
    ("#b07a00", "#f0c04a"),
    ("#4d4a44", "#d6d2c8"),
    ("#5b4fc4", "#a79ef5"),
)
NUM_COLORS = len(COLORS)
DASHES = ("", "7 4", "2 3")


def series_color(number: int) -> str:
    """Returns the color of a line by its number, from 0; colors repeat after seven lines."""
    return f"var(--series-{number % NUM_COLORS})"


def series_dash(number: int) -> str:
    """Returns the dashes of a line, which differ between lines of the same color."""
    return DASHES[number // NUM_COLORS % len(DASHES)]


def chart_figure(panel: Panel, x_max: float, marks: Sequence[float] = ()) -> str:
    """Returns the HTML of a chart with its title and legend.

    Args:
        panel: title and lines, whose x values are epochs. Lines without a label are not in the
            legend.
        x_max: end of the x axis.
        marks: epochs to mark with a dashed line.
    """
    legend = "".join(
        f'<span class="key">{_swatch(line)}{html.escape(line.label)}</span>'
        for line in panel.lines
        if line.label
    )
    return (
        f'<figure class="chart"><figcaption><strong>{html.escape(panel.title)}</strong>{legend}'
        f"</figcaption>{_svg(panel, x_max, marks)}</figure>"
    )


def series_swatch(number: int) -> str:
    """Returns the HTML of a short stroke in the color of a line by its number."""
    return _swatch(Line("", (), (), series_color(number), dash=series_dash(number)))


def _swatch(line: Line) -> str:
    return (
        '<svg class="swatch" viewBox="0 0 22 8" aria-hidden="true">'
        f'<path class="{_line_class(line)}" d="M1 4H21" {_stroke(line)}/></svg>'
    )


def _svg(panel: Panel, x_max: float, marks: Sequence[float]) -> str:
    low, high = y_range(panel.lines)

    def x(value: float) -> float:
        return LEFT + (WIDTH - LEFT - RIGHT) * value / x_max

    def y(value: float) -> float:
        inside = min(max(value, low), high)
        return HEIGHT - BOTTOM - (HEIGHT - TOP - BOTTOM) * (inside - low) / (high - low)

    parts = []
    for value in nice_ticks(low, high, 5):
        parts.append(f'<path class="grid" d="M{LEFT} {y(value):.1f}H{WIDTH - RIGHT}"/>')
        parts.append(_text(LEFT - 7, y(value) + 4, _number(value), "end"))
    parts.append(f'<path class="axis" d="M{LEFT} {HEIGHT - BOTTOM}H{WIDTH - RIGHT}"/>')
    for value in nice_ticks(0, x_max, 8):
        if value == int(value):
            parts.append(_text(x(value), HEIGHT - BOTTOM + 16, f"{value:g}", "middle"))
    parts += [f'<path class="mark" d="M{x(v):.1f} {TOP}V{HEIGHT - BOTTOM}"/>' for v in marks]
    for line in panel.lines:
        points = [
            (float(a), float(b)) for a, b in zip(line.x, line.y, strict=True) if math.isfinite(b)
        ]
        path = "L".join(f"{x(a):.1f} {y(b):.1f}" for a, b in points)
        if len(points) > 1:
            parts.append(f'<path class="{_line_class(line)}" d="M{path}" {_stroke(line)}/>')
        if not line.is_faint and len(points) <= MAX_MARKERS or len(points) == 1:
            parts += [
                f'<circle cx="{x(a):.1f}" cy="{y(b):.1f}" r="3.2" fill="{line.color}">'
                f"<title>{html.escape(_point_text(line, a, b))}</title></circle>"
                for a, b in points
            ]
    label = html.escape(f"{panel.title} by epoch")
    return (
        f'<svg class="plot" viewBox="0 0 {WIDTH} {HEIGHT}" role="img" aria-label="{label}">'
        f"{''.join(parts)}</svg>"
    )


def _point_text(line: Line, epoch: float, value: float) -> str:
    """Returns the text shown when the pointer is on a point."""
    return f"{line.label + ', ' if line.label else ''}epoch {epoch:g}: {value:.4g}"


def _text(x: float, y: float, text: str, anchor: str) -> str:
    return f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}">{html.escape(text)}</text>'


def _number(value: float) -> str:
    return f"{value:g}".replace("e-0", "e-").replace("-", "\N{MINUS SIGN}")


def _line_class(line: Line) -> str:
    return "curve faint" if line.is_faint else "curve"


def _stroke(line: Line) -> str:
    dash = f' stroke-dasharray="{line.dash}"' if line.dash else ""
    return f'stroke="{line.color}"{dash}'


def _series_variables(scheme: int) -> str:
    return " ".join(f"--series-{i}: {colors[scheme]};" for i, colors in enumerate(COLORS))


CHART_STYLE = f"""\
:root {{ {_series_variables(0)} }}
@media (prefers-color-scheme: dark) {{ :root {{ {_series_variables(1)} }} }}
.charts {{ display: grid; grid-template-columns: repeat(auto-fill, minmax(min(19rem, 100%), 1fr));
  gap: 1rem; }}
.chart {{ display: flex; flex-direction: column; justify-content: space-between;
  padding: 1rem 1rem .6rem; break-inside: avoid; background: var(--card);
  border: 1px solid var(--line); border-radius: 12px; }}
.chart figcaption {{ display: flex; flex-wrap: wrap; gap: .1rem .75rem; margin-bottom: .5rem;
  font-size: .8125rem; color: var(--quiet); }}
.chart strong {{ margin-right: auto; color: var(--text); font-size: .9375rem; font-weight: 600; }}
.key {{ display: inline-flex; align-items: center; gap: .4rem; overflow-wrap: anywhere; }}
.swatch {{ flex: none; width: 18px; height: 8px; }}
.plot {{ display: block; width: 100%; height: auto; }}
.plot text {{ fill: var(--quiet); font-size: 11.5px; font-variant-numeric: tabular-nums; }}
.grid, .axis, .mark, .curve {{ fill: none; }}
.grid {{ stroke: var(--line); stroke-width: 1; }}
.axis {{ stroke: var(--quiet); stroke-width: 1; }}
.mark {{ stroke: var(--quiet); stroke-width: 1.2; stroke-dasharray: 3 3; }}
.curve {{ stroke-width: 2.2; stroke-linejoin: round; stroke-linecap: round; }}
.faint {{ stroke-width: 1.2; opacity: .45; }}
@media print {{ .charts {{ grid-template-columns: 1fr 1fr; }} }}
"""
