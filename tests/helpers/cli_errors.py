"""Runs commands that are expected to fail."""

from __future__ import annotations

from effcap.tools.cli import main


def fails(arguments, capsys) -> str:
    """The one line that a failing command prints."""
    try:
        code = main(arguments)
    except SystemExit as stopped:
        code = stopped.code
    captured = capsys.readouterr()
    assert code == 2 and captured.out == ""
    assert captured.err.count("\n") == 1 and captured.err.endswith("\n")
    return captured.err
