"""Progress bars on terminals, and progress lines in log files."""

from __future__ import annotations

import io

import pytest
from rich.console import Console

from effcap.utils import progress
from effcap.utils.progress import ProgressBar, track


@pytest.fixture
def clock(monkeypatch):
    """A clock that advances 10 seconds each time it is read."""
    now = iter(range(0, 10**6, 10))
    monkeypatch.setattr(progress.time, "monotonic", lambda: next(now))


def test_log_files_get_a_line_at_intervals(capsys, clock):
    with ProgressBar("training", 100, interval=25) as bar:
        for _ in range(9):
            bar.advance("loss 1.5")
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 3
    assert lines[0] == "training: 3 of 100, 0:16:10 left, loss 1.5"


def test_remaining_time_ignores_steps_completed_earlier(capsys, clock):
    with ProgressBar("training", 100, done=90, interval=25) as bar:
        for _ in range(4):
            bar.advance()
    assert capsys.readouterr().err.splitlines()[0] == "training: 93 of 100, 0:01:10 left"


def test_terminals_show_a_bar_with_lines_above_it(monkeypatch):
    file = io.StringIO()
    monkeypatch.setattr(
        progress, "Console", lambda stderr: Console(file=file, force_terminal=True, width=80)
    )
    with ProgressBar("training", 2) as bar:
        bar.advance("loss 1.5")
        bar.print_line(
            "epoch 1 of 2: loss 1.5, cross-entropy 1.4, validation cross-entropy 1.6, 9 s x"
        )
        bar.advance()
    text = file.getvalue()
    assert "2/2" in text and "loss 1.5" in text
    assert "cross-entropy 1.6, 9 s x" in text  # not wrapped
    assert text.endswith("\x1b[?25h")  # the cursor is visible again


def test_track_yields_items_unchanged(capsys):
    assert list(track(iter("abc"), 3, "letters")) == list("abc") == list(track("abc", 3, None))
