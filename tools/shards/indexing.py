"""Checks shards and writes indexes of the samples that can be used."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from os import PathLike
from pathlib import Path

import numpy as np

from effcap.tools.shards.check import CheckJob, ShardSummary
from effcap.tools.shards.check_result import SHARD, dali_path, is_foreign
from effcap.tools.shards.duplicates import FinishJob, HashJob, checked_path, mark_excess
from effcap.tools.shards.shard_progress import ShardProgress
from effcap.trainers.data.shards.filters import Filters
from effcap.trainers.data.shards.shard_index import ShardIndex, index_paths, is_remote
from effcap.utils.parallel import run_jobs

UNREADABLE = "shard unreadable"


@dataclass(frozen=True)
class IndexSummary:
    """Summary of `index_shards`.

    Attributes:
        shards: summary of each shard, in their order.
    """

    shards: list[ShardSummary]

    @property
    def num_samples(self) -> int:
        """Number of samples kept."""
        return sum(shard.num_samples for shard in self.shards)

    @property
    def num_captions(self) -> int:
        """Number of captions kept."""
        return sum(shard.num_captions for shard in self.shards)

    @property
    def num_up_to_date(self) -> int:
        """Number of shards whose index was up to date."""
        return sum(shard.was_up_to_date for shard in self.shards)

    @property
    def counts(self) -> Counter[tuple[str, str]]:
        """Number of entries left out by (kind, reason); kind is "sample", "caption" or "shard"."""
        total: Counter[tuple[str, str]] = Counter()
        for shard in self.shards:
            total.update(shard.counts)
            if shard.error:
                total[SHARD, UNREADABLE] += 1
        return total


def index_shards(
    shards: Sequence[str],
    filters: Filters | None = None,
    folder: str | PathLike | None = None,
    *,
    num_processes: int = 1,
) -> IndexSummary:
    """Checks every sample of shards and writes an index of the usable ones for each shard.

    A sample is the members of a tar whose names differ only in the last suffix. It is usable if its
    photo can be decoded and it has a caption that passes the filters. A shard with an up-to-date
    index of the same filters is not read again, so that an interrupted call can be repeated. The
    indexes are NAME.npz for `read_shards` and NAME.idx for DALI's webdataset reader. Shows a
    progress bar.

    Args:
        shards: paths and URLs, such as `find_shards` returns.
        filters: photos and captions to keep; by default all usable ones.
        folder: folder of the indexes; by default each is beside its shard.
        num_processes: shards checked at the same time. More than 1 require a main module that can
            be imported, with its code under `if __name__ == "__main__":`.

    Returns:
        The summary. A shard that cannot be read has an `error`, and an empty index, so that
        training ignores it.

    Raises:
        FileExistsError: a NAME.npz is not an index, such as embeddings.
        ValueError: two shards would have the same index, or a remote shard has no folder.
        OSError: an index cannot be written.
        ImportError: a shard is remote and webdataset is not installed.

    Example:
        >>> index_shards(find_shards("cc12m"), Filters(min_side=200, persons="person"))
    """
    filters = filters or Filters()
    paths = index_paths(shards, folder)
    foreign = next(filter(is_foreign, paths), None)
    if foreign is not None:
        raise FileExistsError(
            f"{foreign} exists and is not a shard index; choose another folder for the indexes "
            "(--index)"
        )
    # Two more steps per shard count and leave out duplicates.
    extra_steps = 2 * len(shards) if filters.max_duplicates else 0
    with ShardProgress(f"checking {len(shards)} shards", shards, extra_steps) as progress:
        summaries = _check(shards, paths, filters, num_processes, progress.advance)
        if filters.max_duplicates is not None:
            _leave_out_duplicates(summaries, paths, filters, num_processes, progress.advance)
    return IndexSummary(summaries)


def _check(
    shards: Sequence[str],
    paths: Sequence[Path],
    filters: Filters,
    num_processes: int,
    advance: Callable[[int], None],
) -> list[ShardSummary]:
    """Checks shards and writes their indexes, which are final unless duplicates are left out."""
    is_final = filters.max_duplicates is None
    key = replace(filters, max_duplicates=None).key
    jobs = [
        CheckJob(shard, path if is_final else checked_path(path), filters, key, is_final)
        for shard, path in zip(shards, paths, strict=True)
    ]
    summaries = run_jobs(jobs, num_processes, advance)
    for summary, path in zip(summaries, paths, strict=True):
        if summary.error and not is_remote(summary.shard):  # an earlier index is useless
            path.unlink(missing_ok=True)
            dali_path(path).unlink(missing_ok=True)
            if os.path.isfile(summary.shard):
                ShardIndex.from_samples(summary.shard, []).write(path)
    return summaries


def _leave_out_duplicates(
    summaries: list[ShardSummary],
    paths: Sequence[Path],
    filters: Filters,
    num_processes: int,
    advance: Callable[[int], None],
) -> None:
    """Writes the final indexes of readable shards and replaces their summaries."""
    assert filters.max_duplicates is not None
    readable = [i for i, summary in enumerate(summaries) if not summary.error]
    if not readable:
        return
    hashes = run_jobs([HashJob(summaries[i].path) for i in readable], num_processes, advance)
    marks = mark_excess(np.concatenate(hashes), filters.max_duplicates)  # (M,)
    ends = np.cumsum([len(values) for values in hashes])
    jobs = [
        FinishJob(summaries[i], paths[i], own_marks, filters.key)
        for i, own_marks in zip(readable, np.split(marks, ends[:-1]), strict=True)
    ]
    for i, summary in zip(readable, run_jobs(jobs, num_processes, advance), strict=True):
        summaries[i] = summary
