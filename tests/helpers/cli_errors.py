"""Runs commands that must fail with one error line."""

from __future__ import annotations

from collections.abc import Sequence

import pytest

from effcap.tools.cli import main


def fails(arguments: Sequence[str], capsys: pytest.CaptureFixture[str]) -> str:
    """Returns the one line that a failing command prints to stderr; its exit code must be 2."""
    try:
        code = main(arguments)
    except SystemExit as stopped:
        code = stopped.code
    captured = capsys.readouterr()
    assert code == 2 and captured.out == ""
    assert captured.err.count("\n") == 1 and captured.err.endswith("\n")
    return captured.err
