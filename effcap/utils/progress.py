"""Progress and lines for people, on stderr, so that results can be piped."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterable, Iterator
from datetime import timedelta
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


class Bar:
    """A progress bar with the time left; where stderr is no terminal, a line now and then.

    Use it in a `with` statement: the terminal is left in order whatever happens.

    Args:
        title: what is being done.
        total: number of steps.
        every: seconds between two lines where stderr is no terminal.
        done: steps that were taken earlier.
    """

    def __init__(self, title: str, total: int, every: float = 30.0, done: int = 0):
        self.title, self.total, self.every = title, total, every
        self.before = self.done = done
        self.console = Console(stderr=True)
        self.drawn = self.console.is_terminal or self.console.is_jupyter
        self.bar = Progress(
            TextColumn("{task.description}"),
            BarColumn(bar_width=20),
            MofNCompleteColumn(),
            TimeRemainingColumn(),
            TextColumn("left{task.fields[status]}"),
            console=self.console,
            redirect_stdout=False,
            disable=not self.drawn,
        )

    def __enter__(self) -> Bar:
        self.started = self.told = time.monotonic()
        self.bar.start()
        self.task = self.bar.add_task(self.title, total=self.total, completed=self.done, status="")
        return self

    def __exit__(self, *_) -> None:
        self.bar.stop()

    def advance(self, status: str | None = None, steps: int = 1) -> None:
        """Counts steps; `status` stays beside the bar until there is another."""
        self.done += steps
        fields = {} if status is None else {"status": f", {status}"}
        self.bar.update(self.task, advance=steps, **fields)
        now = time.monotonic()
        if not self.drawn and now - self.told >= self.every:
            self.told = now
            pace = (now - self.started) / (self.done - self.before)  # seconds per step
            left = pace * (self.total - self.done)
            line = f"{self.title}: {self.done} of {self.total}, {timedelta(seconds=round(left))}"
            say(f"{line} left{'' if status is None else f', {status}'}")

    def tell(self, status: str) -> None:
        """Shows what is going on between two steps."""
        self.bar.update(self.task, status=f", {status}")

    def say(self, line: str) -> None:
        """Prints a line above the bar."""
        if self.drawn:
            self.console.print(line, soft_wrap=True, markup=False, highlight=False)
        else:
            say(line)


def track(items: Iterable[Item], total: int, title: str | None) -> Iterator[Item]:
    """`items`, with a `Bar` while they pass; without a title they just pass."""
    if title is None:
        yield from items
        return
    with Bar(title, total) as bar:
        for item in items:
            yield item
            bar.advance()


def say(line: str) -> None:
    """Prints a line for people."""
    print(line, file=sys.stderr, flush=True)
