"""Shards into indexes of the samples that can be trained on."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from os import PathLike

import numpy as np

from effcap.trainers.data.shards.check import CheckJob, ShardSummary, steps
from effcap.trainers.data.shards.check_result import SHARD, dali_path, is_foreign
from effcap.trainers.data.shards.duplicates import FinishJob, HashJob, checked_path, too_often
from effcap.trainers.data.shards.filters import Filters
from effcap.trainers.data.shards.jobs import run_jobs
from effcap.trainers.data.shards.shard_index import ShardIndex, index_paths, is_remote

UNREADABLE = "shard unreadable"


@dataclass(frozen=True)
class IndexSummary:
    """What `index_shards` came to, by shard, in their order."""

    shards: list[ShardSummary]

    @property
    def samples(self) -> int:
        """Number of samples kept."""
        return sum(shard.samples for shard in self.shards)

    @property
    def captions(self) -> int:
        """Number of captions kept."""
        return sum(shard.captions for shard in self.shards)

    @property
    def known(self) -> int:
        """Number of shards that were not read again."""
        return sum(shard.known for shard in self.shards)

    @property
    def counts(self) -> Counter[tuple[str, str]]:
        """How much was left out, by (what, reason), what being sample, caption or shard."""
        total: Counter[tuple[str, str]] = Counter()
        for shard in self.shards:
            total.update(shard.counts or {})
            if shard.problem:
                total[SHARD, UNREADABLE] += 1
        return total


def index_shards(
    shards: Sequence[str],
    filters: Filters | None = None,
    folder: str | PathLike | None = None,
    processes: int = 1,
    advance: Callable[[int], None] | None = None,
) -> IndexSummary:
    """Checks every sample of shards, and writes an index of the good ones for each shard.

    A sample is the members of a tar whose names differ in the last suffix alone; it is good if its
    photo can be decoded and it has a caption that passes the filters. A shard whose index is of
    this very tar and made with the same filters is not read again, so that a run that was broken
    off goes on. The indexes are NAME.npz, for `read_indexes` and EffCap's training, and NAME.idx
    for DALI's webdataset reader.

    Args:
        shards: paths and URLs, as `find_shards` gives them.
        filters: what to keep; by default all good samples.
        folder: for the indexes; by default each lies beside its shard.
        processes: how many shards are checked at the same time. More than 1 need a program that
            can be imported, with its start under `if __name__ == "__main__":`.
        advance: called now and then with how much was done since, out of `total_steps`.

    Returns:
        What was kept and left out. A shard that cannot be read is told there, too; its index is
        empty, so that training passes over it.

    Raises:
        FileExistsError: for a NAME.npz that is something else, such as embeddings.
        ValueError: for shards whose indexes would have the same name, or remote ones without a
            folder.
        OSError: when an index cannot be written.

    Example:
        >>> index_shards(find_shards("cc12m"), Filters(min_side=200, persons="person"))
    """
    filters = filters or Filters()
    paths = index_paths(shards, folder)
    foreign = next(filter(is_foreign, paths), None)
    if foreign is not None:
        raise FileExistsError(
            f"Expected no other file where an index goes; name a folder for them (--index DIR). "
            f"Received: {foreign}"
        )
    final = filters.max_duplicates is None
    options = replace(filters, max_duplicates=None).key
    jobs = [
        CheckJob(shard, path if final else checked_path(path), filters, options, final)
        for shard, path in zip(shards, paths, strict=True)
    ]
    checked = run_jobs(jobs, processes, advance)
    for summary, path in zip(checked, paths, strict=True):
        if summary.problem and not is_remote(summary.shard):  # what was there before is of no use
            path.unlink(missing_ok=True)
            dali_path(path).unlink(missing_ok=True)
            if os.path.isfile(summary.shard):
                ShardIndex.of(summary.shard, []).write(path)
    if filters.max_duplicates is None:
        return IndexSummary(checked)
    good = [i for i, summary in enumerate(checked) if not summary.problem]
    hashes = run_jobs([HashJob(checked[i].path) for i in good], processes, advance)
    if good:
        marks = too_often(np.concatenate(hashes), filters.max_duplicates)
        ends = np.cumsum([len(part) for part in hashes])
        finishing = [
            FinishJob(checked[i], paths[i], part, filters.key)
            for i, part in zip(good, np.split(marks, ends[:-1]), strict=True)
        ]
        for i, summary in zip(good, run_jobs(finishing, processes, advance), strict=True):
            checked[i] = summary
    return IndexSummary(checked)


def total_steps(shards: Sequence[str], filters: Filters) -> int:
    """How much `index_shards` has to do: bytes to read, remote shards, and two for duplicates."""
    return sum(map(steps, shards)) + (2 * len(shards) if filters.max_duplicates else 0)
