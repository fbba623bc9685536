"""Runs the command line in a process of its own."""

from __future__ import annotations

import os
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]

# Words of TensorFlow's and Python's own messages, which no command may print.
CHATTER = ("I0000", "W0000", "E0000", "All log messages", "oneDNN", "cuda", "XLA", "AutoGraph",
           "UserWarning", "Traceback")  # fmt: skip


def effcap(*words: object) -> list[str]:
    """Returns an `effcap` command as arguments for `subprocess`."""
    return [sys.executable, "-m", "effcap.tools", *map(str, words)]


def environment() -> dict[str, str]:
    """Returns the environment of a user's terminal, with this checkout importable."""
    kept = {k: v for k, v in os.environ.items() if k not in ("TF_CPP_MIN_LOG_LEVEL", "COLUMNS")}
    return {**kept, "PYTHONPATH": str(ROOT)}
