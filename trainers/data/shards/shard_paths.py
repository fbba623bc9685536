"""Expands file names, folders and patterns into lists of shards."""

from __future__ import annotations

import glob
import os
import re
from collections.abc import Sequence
from os import PathLike
from pathlib import Path
from typing import Any

from effcap.trainers.data.example import first_names
from effcap.trainers.data.shards.shard_index import is_remote


def find_shards(shards: str | PathLike | Sequence[str | PathLike]) -> list[str]:
    """Expands files, folders, patterns and number ranges into shards.

    A file is accepted with any suffix. A folder is searched recursively for .tar files, a
    pattern (`cc12m/*.tar`) is expanded, both in natural order. Braces (`{00000..01242}.tar`) are
    expanded, also in URLs (`http:`, `s3:`, ...) and commands (`pipe:curl ...`).

    Args:
        shards: files, folders, patterns, URLs or commands.

    Returns:
        Paths and URLs without duplicates, in the order of the arguments.

    Raises:
        FileNotFoundError: an argument does not exist or matches no shard.
        ValueError: unbalanced braces.
        ImportError: braces are used and braceexpand is not installed.
    """
    if isinstance(shards, str | PathLike):
        shards = [shards]
    shards_by_location: dict[str, str] = {}
    missing: list[str] = []
    for argument in [os.fspath(shard) for shard in shards]:
        for name in [argument] if os.path.exists(argument) else _expand_braces(argument):
            matches = _expand(name)
            if not matches:
                missing.append(name)
            for shard in matches:
                location = shard if is_remote(shard) else os.path.abspath(shard)
                shards_by_location.setdefault(location, shard)
    if missing:
        raise FileNotFoundError(
            f"No shards found for {first_names(missing)}; pass files, folders with "
            ".tar files, patterns or URLs"
        )
    if not shards_by_location:
        raise FileNotFoundError("No shards given; pass files, folders, patterns or URLs")
    return list(shards_by_location.values())


def _expand_braces(name: str) -> list[str]:
    if "{" not in name:
        return [name]
    try:
        from braceexpand import UnbalancedBracesError, braceexpand  # type: ignore[attr-defined]
    except ImportError:
        raise ImportError(
            f"Braces as in {name} require braceexpand: pip install 'effcap[webdataset]'"
        ) from None
    try:
        return list(braceexpand(name))
    except UnbalancedBracesError:
        raise ValueError(f"Expected balanced braces. Received: {name}") from None


def _expand(name: str) -> list[str]:
    """Returns the shards of one name without braces."""
    if is_remote(name):
        return [name]
    if os.path.isdir(name):
        below = (str(path) for path in Path(name).rglob("*") if _is_shard(path.relative_to(name)))
        return sorted(filter(os.path.isfile, below), key=_natural)
    if os.path.exists(name):
        return [name]
    if glob.has_magic(name):
        return sorted(filter(os.path.isfile, glob.iglob(name, recursive=True)), key=_natural)
    return []


def _is_shard(path: Path) -> bool:
    return path.suffix.lower() == ".tar" and not any(name.startswith(".") for name in path.parts)


def _natural(name: str) -> tuple[list[Any], str]:
    """Returns a sort key that compares numbers in names as numbers."""
    pieces = re.split(r"(\d+)", name.casefold())  # text and digits alternate
    return [int(piece) if i % 2 else piece for i, piece in enumerate(pieces)], name
