"""Leaves out captions that occur too often over all shards."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from effcap.tools.shards.check import ShardSummary
from effcap.tools.shards.check_result import CheckedShard
from effcap.trainers.data.shards.shard_index import ShardIndex

REASON = "duplicate caption"


def checked_path(path: Path) -> Path:
    """Returns the path of a shard's check before duplicates are left out; `path` is the index."""
    return path.with_name(f".{path.stem}.checked.npz")


def mark_excess(values: np.ndarray, limit: int) -> np.ndarray:
    """Marks (M,) bool the values (M,) that occurred `limit` times before."""
    order = np.argsort(values, kind="stable")  # (M,) equal values side by side, in their order
    ordered = values[order]  # (M,)
    starts = np.flatnonzero(np.concatenate([[True], ordered[1:] != ordered[:-1]]))
    occurrence = np.arange(len(order)) - np.repeat(starts, np.diff(starts, append=len(order)))
    marks = np.zeros(len(order), bool)  # (M,)
    marks[order] = occurrence >= limit
    return marks


@dataclass(frozen=True)
class HashJob:
    """Hashes the captions of an index."""

    path: Path

    def __call__(self, advance: Callable[[int], None]) -> np.ndarray:
        """Returns the hashes (M,) uint64."""
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
    """Writes the index of a checked shard without the marked captions.

    Attributes:
        summary: summary of the check.
        path: path of the index.
        marks: (M,) bool, captions to leave out.
        filters_key: key to store in the index.
    """

    summary: ShardSummary
    path: Path
    marks: np.ndarray
    filters_key: str

    def __call__(self, advance: Callable[[int], None]) -> ShardSummary:
        """Runs the job."""
        checked = CheckedShard.read(self.summary.path)
        checked = checked.without(self.marks, REASON, self.filters_key)
        checked.write_for_dali(self.path)
        checked.write(self.path)
        advance(1)
        summary = self.summary
        return ShardSummary.from_check(summary.shard, self.path, checked, summary.was_up_to_date)
