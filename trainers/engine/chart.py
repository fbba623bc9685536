"""Draws line charts with Pillow."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
from PIL import Image, ImageDraw, ImageFont

SCALE = 3  # drawn larger and reduced, for smooth lines
WIDTH, PANEL_HEIGHT = 900, 300  # in pixels
LEFT, RIGHT, TOP, BOTTOM = 76, 24, 44, 56  # margins of a panel's axes
FONT_SIZE, DASH = 14, 8  # in pixels
INK, GREY, GRID = "#222222", "#666666", "#e4e4e4"
OUTLIERS = 1  # percent of the values of a faint line that may lie outside, at each end


@dataclass(frozen=True)
class Line:
    """A line of a panel.

    Attributes:
        label: name in the legend; "" for none.
        x: (N,) values.
        y: (N,) values.
        color: color, such as "#1f77b4".
        is_faint: whether the line is thin and has no markers, for noisy values.
        dash: pattern of SVG's stroke-dasharray; "" for a solid line. Pictures have solid lines.
    """

    label: str
    x: Sequence[float] | np.ndarray
    y: Sequence[float] | np.ndarray
    color: str
    is_faint: bool = False
    dash: str = ""


@dataclass(frozen=True)
class Panel:
    """A chart with its own y axis.

    Attributes:
        title: title above the axes.
        lines: lines, of which the later ones are on top.
    """

    title: str
    lines: Sequence[Line] = field(default_factory=list)


@dataclass(frozen=True)
class Mark:
    """A vertical line through all panels.

    Attributes:
        x: its position.
        label: text below the last panel.
    """

    x: float
    label: str


def draw_chart(
    panels: Sequence[Panel], x_label: str, x_max: float, mark: Mark | None = None
) -> Image.Image:
    """Returns panels below each other with a common x axis from 0.

    Args:
        panels: panels from top to bottom.
        x_label: name of the x axis.
        x_max: end of the x axis.
        mark: value to mark; None for none.
    """
    picture = Image.new("RGB", (WIDTH * SCALE, PANEL_HEIGHT * len(panels) * SCALE), "white")
    for i, panel in enumerate(panels):
        axes = _Axes(ImageDraw.Draw(picture), PANEL_HEIGHT * i, x_max, y_range(panel.lines))
        is_last = i == len(panels) - 1
        axes.draw_grid(panel.title, x_label if is_last else "")
        if mark is not None:
            axes.draw_mark(mark.x, mark.label if is_last else "")
        for line in panel.lines:
            axes.draw_line(line)
        axes.draw_legend([line for line in panel.lines if line.label])
    return picture.resize((WIDTH, PANEL_HEIGHT * len(panels)), Image.Resampling.LANCZOS)


def nice_ticks(low: float, high: float, count: int) -> list[float]:
    """Returns about `count` round numbers from `low` to `high`."""
    rough = (high - low) / max(count, 1)
    power = 10.0 ** math.floor(math.log10(rough))
    step = next(factor for factor in (1, 2, 5, 10) if factor * power >= rough * 0.999) * power
    first, last = math.ceil(low / step - 1e-9), math.floor(high / step + 1e-9)
    return [round(i * step, 12) for i in range(first, last + 1)]


def y_range(lines: Sequence[Line]) -> tuple[float, float]:
    """Returns the range of a y axis, without the outliers of faint lines."""
    values: list[float] = []
    for line in lines:
        y = np.asarray(line.y, float)
        y = y[np.isfinite(y)]
        if len(y):
            outliers = OUTLIERS if line.is_faint else 0
            values += np.percentile(y, (outliers, 100 - outliers)).tolist()
    low, high = (min(values), max(values)) if values else (0.0, 1.0)
    margin = 0.06 * (high - low) or 0.1 * abs(high) or 1.0
    return low - margin, high + margin


class _Axes:
    """The axes of a panel, with coordinates in pixels of the reduced picture."""

    def __init__(
        self, draw: ImageDraw.ImageDraw, top: int, x_max: float, y_range: tuple[float, float]
    ) -> None:
        self.draw, self.x_max, self.y_range = draw, x_max, y_range
        self.font = ImageFont.load_default(size=FONT_SIZE * SCALE)
        self.left, self.right = LEFT, WIDTH - RIGHT
        self.top, self.bottom = top + TOP, top + PANEL_HEIGHT - BOTTOM

    def x(self, value: float) -> float:
        return self.left + (self.right - self.left) * value / self.x_max

    def y(self, value: float) -> float:
        low, high = self.y_range
        return self.bottom - (self.bottom - self.top) * (value - low) / (high - low)

    def text(self, x: float, y: float, text: str, anchor: str, color: str = INK) -> None:
        self.draw.text((x * SCALE, y * SCALE), text, color, self.font, anchor=anchor)

    def segment(self, points: Sequence[tuple[float, float]], color: str, width: float) -> None:
        scaled = [(x * SCALE, y * SCALE) for x, y in points]
        self.draw.line(scaled, color, round(width * SCALE), joint="curve")

    def draw_grid(self, title: str, x_label: str) -> None:
        self.text(self.left, self.top - 12, title, "ls")
        for value in nice_ticks(*self.y_range, 6):
            self.segment([(self.left, self.y(value)), (self.right, self.y(value))], GRID, 1)
            self.text(self.left - 8, self.y(value), f"{value:g}", "rm", GREY)
        for value in nice_ticks(0, self.x_max, 10):
            if value == int(value):
                self.segment(
                    [(self.x(value), self.bottom), (self.x(value), self.bottom + 5)], GREY, 1
                )
                self.text(self.x(value), self.bottom + 9, f"{value:g}", "ma", GREY)
        corners = [(self.left, self.top), (self.left, self.bottom), (self.right, self.bottom)]
        self.segment(corners, GREY, 1)
        self.text((self.left + self.right) / 2, self.bottom + 36, x_label, "mm")

    def draw_mark(self, value: float, label: str) -> None:
        x = self.x(value)
        for y in range(self.top, self.bottom, DASH):
            self.segment([(x, y), (x, min(y + DASH / 2, self.bottom))], GREY, 1.2)
        if label:
            width = self.font.getlength(label) / SCALE
            left, y = self.right - width, self.bottom + 36
            self.text(self.right, y, label, "rm", GREY)
            for i in range(4):
                x = left - 8 - DASH * i
                self.segment([(x - DASH / 2, y), (x, y)], GREY, 1.2)

    def draw_line(self, line: Line) -> None:
        low, high = self.y_range
        points = [
            (self.x(x), self.y(min(max(y, low), high)))
            for x, y in zip(line.x, line.y, strict=True)
            if math.isfinite(y)
        ]
        if len(points) > 1:
            self.segment(points, line.color, 1 if line.is_faint else 2.2)
        for x, y in points if not line.is_faint and len(points) <= 60 else ():
            box = [(c + r) * SCALE for r in (-3.5, 3.5) for c in (x, y)]
            self.draw.ellipse(box, line.color)

    def draw_legend(self, lines: Sequence[Line]) -> None:
        x = float(self.right)
        for line in reversed(lines):
            x -= self.font.getlength(line.label) / SCALE
            self.text(x, self.top - 12, line.label, "ls")
            self.segment([(x - 28, self.top - 17), (x - 6, self.top - 17)], line.color, 3)
            x -= 48
