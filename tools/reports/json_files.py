"""Writes JSON files of results."""

from __future__ import annotations

import json
from os import PathLike
from pathlib import Path
from typing import Any

from effcap.utils.files import write_text_atomically


def write_json(path: str | PathLike[str], content: Any) -> None:
    """Writes indented JSON, replacing a file once the new one is on disk; creates folders."""
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    write_text_atomically(path, json.dumps(content, indent=1, ensure_ascii=False) + "\n")
