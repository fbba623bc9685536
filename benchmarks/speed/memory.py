"""Measures the memory of this process, for scripts of this folder."""

from __future__ import annotations

import resource
import sys


def peak_memory() -> int:
    """Returns the peak memory of this process in bytes."""
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit
