"""Names of scores, and numbers as text."""

from __future__ import annotations

import json
from typing import Any

SCORE_NAMES = {
    "val_cider": "validation CIDEr",
    "val_cross_entropy": "validation cross-entropy",
    "val_loss": "validation loss",
    "val_distinct": "distinct captions",
    "reward": "reward",
    "baseline": "baseline",
    "cross_entropy": "training cross-entropy",
    "npair": "n-pair loss",
    "loss": "training loss",
    "length": "length",
    "distinct": "distinct samples",
}


def format_score(name: str, value: float) -> str:
    """Returns a score as text."""
    if name in ("val_distinct", "distinct"):
        return f"{value:.0%}"
    return f"{value:.3f}".replace("-", "\N{MINUS SIGN}")


def format_duration(seconds: float) -> str:
    """Returns a duration as text, such as "2 h 5 min"."""
    if seconds < 10:
        return f"{seconds:.1f} s"
    total = round(seconds)
    if total < 60:
        return f"{total} s"
    if total < 3600:
        return f"{total // 60} min {total % 60} s"
    return f"{total // 3600:,} h {total % 3600 // 60} min"


def format_setting(value: Any) -> str:
    """Returns the value of a setting as `--set` takes it."""
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
