"""Runs the command line in a process of its own."""

from __future__ import annotations

import os
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]


CHATTER = ("I0000", "W0000", "E0000", "All log messages", "oneDNN", "cuda", "XLA", "AutoGraph",
           "UserWarning", "Traceback")  # fmt: skip


def effcap(*words) -> list[str]:
    return [sys.executable, "-m", "effcap", *map(str, words)]


def environment() -> dict[str, str]:
    kept = {k: v for k, v in os.environ.items() if k not in ("TF_CPP_MIN_LOG_LEVEL", "COLUMNS")}
    return {**kept, "PYTHONPATH": str(ROOT)}
