"""Shards as they are given, by name, folder or pattern, into a list of paths and URLs."""

from __future__ import annotations

import glob
import os
import re
from collections.abc import Sequence
from os import PathLike
from pathlib import Path

from effcap.trainers.data.shards.shard_index import is_remote

SHOWN = 5  # names in an error


def find_shards(arguments: Sequence[str | PathLike]) -> list[str]:
    """Expands files, folders, patterns and number ranges into shards.

    A file is taken whatever its suffix. A folder gives the .tar files in it and below it, a pattern
    (`cc12m/*.tar`) what it matches, both in natural order; braces (`{00000..01242}.tar`) give what
    they say, also in URLs (`http:`, `s3:`, ...) and commands (`pipe:curl ...`).

    Args:
        arguments: as they come from a command line.

    Returns:
        Each shard once, in the order of the arguments.

    Raises:
        FileNotFoundError: an argument is not there or gives no shard.
        ValueError: braces that are not closed, or without the package that expands them.
    """
    if isinstance(arguments, str | PathLike):
        arguments = [arguments]
    found: dict[str, str] = {}
    missing: list[str] = []
    for argument in map(os.fspath, arguments):
        for name in [argument] if os.path.exists(argument) else _braces(argument):
            shards = _expand(name)
            if not shards:
                missing.append(name)
            for shard in shards:
                found.setdefault(shard if is_remote(shard) else os.path.abspath(shard), shard)
    if missing:
        more = f" and {len(missing) - SHOWN} more" if len(missing) > SHOWN else ""
        raise FileNotFoundError(
            "Expected shards: files, folders with .tar files, patterns or URLs. Received: "
            f"{', '.join(missing[:SHOWN])}{more}, where there are none"
        )
    if not found:
        raise FileNotFoundError("Expected at least one shard. Received: none")
    return list(found.values())


def _braces(name: str) -> list[str]:
    if "{" not in name:
        return [name]
    try:
        from braceexpand import UnbalancedBracesError, braceexpand
    except ImportError:
        raise ValueError(
            "Expected the package braceexpand for braces (pip install 'effcap[webdataset]'). "
            f"Received: {name} without it"
        ) from None
    try:
        return list(braceexpand(name))
    except UnbalancedBracesError:
        raise ValueError(f"Expected braces that are closed. Received: {name}") from None


def _expand(name: str) -> list[str]:
    """The shards of one name; none where there are none."""
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
    return path.suffix.lower() == ".tar" and not any(part.startswith(".") for part in path.parts)


def _natural(name: str) -> tuple[list, str]:
    """Sort key under which numbers in names count as numbers."""
    parts = re.split(r"(\d+)", name.casefold())  # text and digits alternate
    return [int(part) if i % 2 else part for i, part in enumerate(parts)], name
