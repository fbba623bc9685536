"""Progress bars and status lines on stderr, which leaves stdout to results."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterable, Iterator
from datetime import timedelta
from importlib.util import find_spec
from typing import TypeVar

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TextColumn,
    TimeRemainingColumn,
)

Item = TypeVar("Item")


class ProgressBar:
    """A progress bar with the remaining time, or lines at intervals.

    There is a bar in a terminal, and in a notebook if ipywidgets is installed.

    Use it in a `with` statement, which restores the terminal on errors too.

    Args:
        title: text before the bar.
        total: number of steps.
        done: number of steps completed earlier, which do not count for the remaining time.
        interval: seconds between two lines where stderr is not a terminal.
    """

    def __init__(self, title: str, total: int, done: int = 0, *, interval: float = 30.0):
        self.title, self.total, self.interval = title, total, interval
        self.first = self.done = done
        self.console = Console(stderr=True)
        if self.console.is_jupyter and find_spec("ipywidgets") is None:
            # Rich would print a new bar below the old one at each update.
            self.console = Console(stderr=True, force_jupyter=False, force_terminal=False)
        self.interactive = self.console.is_terminal or self.console.is_jupyter
        self.bar = Progress(
            TextColumn("{task.description}"),
            BarColumn(bar_width=20),
            MofNCompleteColumn(),
            TimeRemainingColumn(),
            TextColumn("left{task.fields[status]}"),
            console=self.console,
            redirect_stdout=False,
            disable=not self.interactive,
        )

    def __enter__(self) -> ProgressBar:
        self.started = self.printed = time.monotonic()
        self.bar.start()
        self.task = self.bar.add_task(self.title, total=self.total, completed=self.done, status="")
        return self

    def __exit__(self, *exception: object) -> None:
        self.bar.stop()

    def advance(self, status: str | None = None, steps: int = 1) -> None:
        """Adds `steps` to the completed ones; `status` stays beside the bar until the next."""
        self.done += steps
        self.bar.update(self.task, advance=steps)
        if status is not None:
            self.set_status(status)
        now = time.monotonic()
        if not self.interactive and now - self.printed >= self.interval:
            self.printed = now
            seconds_per_step = (now - self.started) / (self.done - self.first)
            left = timedelta(seconds=round(seconds_per_step * (self.total - self.done)))
            suffix = "" if status is None else f", {status}"
            print_line(f"{self.title}: {self.done} of {self.total}, {left} left{suffix}")

    def set_status(self, status: str) -> None:
        """Shows `status` beside the bar without completing a step."""
        self.bar.update(self.task, status=f", {status}")

    def print_line(self, line: str) -> None:
        """Prints a line above the bar."""
        if self.interactive:
            self.console.print(line, soft_wrap=True, markup=False, highlight=False)
        else:
            print_line(line)


def track(iterable: Iterable[Item], total: int, title: str | None) -> Iterator[Item]:
    """Yields the items of `iterable` with a `ProgressBar`, or without one if `title` is None."""
    if title is None:
        yield from iterable
        return
    with ProgressBar(title, total) as bar:
        for item in iterable:
            yield item
            bar.advance()


def print_line(line: str) -> None:
    """Prints a line to stderr."""
    print(line, file=sys.stderr, flush=True)
