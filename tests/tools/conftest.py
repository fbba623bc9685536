"""Fixtures of the tests of effcap.tools."""

from __future__ import annotations

import pytest

from effcap.utils.progress import ProgressBar


@pytest.fixture
def progress_steps(monkeypatch) -> list[int]:
    """The steps that progress bars complete, in order."""
    recorded = []
    advance = ProgressBar.advance

    def record(bar: ProgressBar, status: str | None = None, steps: int = 1) -> None:
        recorded.append(steps)
        advance(bar, status, steps)

    monkeypatch.setattr(ProgressBar, "advance", record)
    return recorded
