"""Captions that are there too often, counted over all shards in their order."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from effcap.trainers.data.shards.check import ShardSummary
from effcap.trainers.data.shards.check_result import Checked
from effcap.trainers.data.shards.shard_index import ShardIndex

REASON = "caption duplicate"


def checked_path(path: Path) -> Path:
    """Where the check of a shard is kept from which duplicates are taken out afterwards."""
    return path.with_name(f".{path.stem}.checked.npz")


def too_often(hashes: np.ndarray, allowed: int) -> np.ndarray:
    """Of numbers (M,), a mark (M,) bool at each that came `allowed` times before."""
    order = np.argsort(hashes, kind="stable")  # (M,) the same numbers side by side, in their order
    ordered = hashes[order]
    starts = np.flatnonzero(np.concatenate([[True], ordered[1:] != ordered[:-1]]))
    place = np.arange(len(order)) - np.repeat(starts, np.diff(starts, append=len(order)))
    marks = np.zeros(len(order), bool)
    marks[order] = place >= allowed
    return marks


@dataclass(frozen=True)
class HashJob:
    """Hashes of the captions in an index."""

    path: Path

    def __call__(self, advance: Callable[[int], None]) -> np.ndarray:
        """(M,) uint64."""
        index = ShardIndex.read(self.path)
        text, ends = index.caption_text.tobytes(), index.caption_ends.tolist()
        digests = [
            hashlib.blake2b(text[begin:end], digest_size=8).digest()
            for begin, end in zip(ends[:-1], ends[1:], strict=True)
        ]
        advance(1)
        return np.frombuffer(b"".join(digests), np.uint64)


@dataclass(frozen=True)
class FinishJob:
    """The index of a shard out of its check, without the captions marked in (M,) bool."""

    summary: ShardSummary
    path: Path
    marks: np.ndarray
    options: str

    def __call__(self, advance: Callable[[int], None]) -> ShardSummary:
        """Writes it."""
        checked = Checked.read(self.summary.path).without(self.marks, REASON, self.options)
        checked.write_for_dali(self.path)
        checked.write(self.path)
        advance(1)
        return ShardSummary.of(self.summary.shard, self.path, checked, self.summary.known)
