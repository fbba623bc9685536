"""Writes JSON files of results."""

from __future__ import annotations

import json
from os import PathLike
from pathlib import Path
from typing import Any


def write_json(path: str | PathLike[str], content: Any) -> None:
    """Writes indented JSON; missing folders are created."""
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(content, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
