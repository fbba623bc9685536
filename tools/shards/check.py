"""Checks the samples of one shard, in a worker process."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from effcap.tools.shards.check_result import (
    CAPTION,
    SAMPLE,
    SHARD,
    CheckedShard,
    LeftOut,
    dali_line,
    dali_path,
    is_up_to_date,
)
from effcap.tools.shards.shard_progress import shard_steps
from effcap.trainers.data.shards.filters import Fault, Filters
from effcap.trainers.data.shards.shard_index import IndexedSample, ShardIndex, is_remote
from effcap.trainers.data.shards.tar import TarReader, open_shard
from effcap.trainers.data.shards.tar_samples import TarSample, read_samples


@dataclass(frozen=True)
class ShardSummary:
    """Summary of the check of a shard.

    Attributes:
        shard: path or URL.
        path: path of its index.
        num_samples, num_captions: number of samples and captions kept.
        counts: number of entries left out by (kind, reason); see `LeftOut`.
        error: why the shard could not be read, or "".
        was_up_to_date: whether an earlier index was up to date, so that the shard was not read.
    """

    shard: str
    path: Path
    num_samples: int = 0
    num_captions: int = 0
    counts: Counter[tuple[str, str]] = field(default_factory=Counter)
    error: str = ""
    was_up_to_date: bool = False

    @classmethod
    def from_check(
        cls, shard: str, path: Path, checked: CheckedShard, was_up_to_date: bool = False
    ) -> ShardSummary:
        """Summarizes a checked shard."""
        counts = Counter((entry.kind, entry.reason) for entry in checked.left_out)
        index = checked.index
        return cls(
            shard, path, len(index), index.num_captions, counts, was_up_to_date=was_up_to_date
        )


@dataclass(frozen=True)
class CheckJob:
    """Checks a shard unless its index is up to date, and writes the index.

    Attributes:
        shard: path or URL.
        path: path of the index.
        filters: photos and captions to keep.
        filters_key: key to store in the index.
        is_final: whether the index is complete, so that DALI's index is written too.
    """

    shard: str
    path: Path
    filters: Filters
    filters_key: str
    is_final: bool

    def __call__(self, advance: Callable[[int], None]) -> ShardSummary:
        """Runs the job."""
        try:
            if is_up_to_date(self.shard, self.path, self.filters_key):
                checked = CheckedShard.read(self.path)
                if self.is_final and not dali_path(self.path).is_file():
                    checked.write_for_dali(self.path)
                advance(shard_steps(self.shard))
                return ShardSummary.from_check(self.shard, self.path, checked, was_up_to_date=True)
            checked = check_shard(self.shard, self.filters, advance, self.filters_key)
        except (OSError, ValueError) as error:
            return ShardSummary(self.shard, self.path, error=str(error))
        if self.is_final:
            checked.write_for_dali(self.path)
        checked.write(self.path)
        return ShardSummary.from_check(self.shard, self.path, checked)


def check_shard(
    shard: str,
    filters: Filters,
    advance: Callable[[int], None] | None = None,
    filters_key: str | None = None,
) -> CheckedShard:
    """Reads a shard and checks every sample.

    Args:
        shard: path or URL of a tar.
        filters: photos and captions to keep; `max_duplicates` is ignored.
        advance: called with the number of progress steps done, out of `shard_steps`.
        filters_key: key to store in the result (default: `filters.key`).

    Raises:
        OSError: the shard cannot be opened or read.
        NotATar: the shard is empty, compressed or not a tar.
        ImportError: the shard is remote and webdataset is not installed.
    """
    advance = advance or (lambda count: None)
    status = None if is_remote(shard) else os.stat(shard)
    with open_shard(shard) as file:
        reader = TarReader(file, advance if status is not None else lambda count: advance(0))
        samples = read_samples(reader, filters)
    if status is None:
        advance(shard_steps(shard))
    kept: list[IndexedSample] = []
    dali_lines: list[str] = []
    left_out: list[LeftOut] = []
    if reader.damage:
        left_out.append(LeftOut(SHARD, "", "shard incomplete", reader.damage))
    elif not samples:
        left_out.append(LeftOut(SHARD, "", "shard without samples", ""))
    for sample in samples:
        captions, faults = _filter_captions(sample, filters)
        if captions and sample.image is not None:
            image = sample.members[sample.image]
            location = (image.offset, image.size, sample.checksums[sample.image])
            kept.append(IndexedSample(sample.key, *location, captions))
            dali_lines.append(dali_line(sample))
        else:
            faults = faults[:1]
        kind = CAPTION if captions else SAMPLE
        left_out += [LeftOut(kind, sample.key, *fault) for fault in faults]
    size_and_time = () if status is None else (status.st_size, status.st_mtime_ns)
    index = ShardIndex.from_samples(shard, kept, *size_and_time)
    return CheckedShard(index, dali_lines, left_out, filters_key or filters.key)


def _filter_captions(sample: TarSample, filters: Filters) -> tuple[list[str], list[Fault]]:
    """Returns the captions of a sample that are kept, and the faults of others or of the photo."""
    fault = sample.fault()
    texts = fault or sample.captions(filters.caption)
    if isinstance(texts, Fault):
        return [], [texts]
    edited = [filters.edit_caption(text) for text in texts]
    captions = [text for text in edited if isinstance(text, str)]
    faults = [fault for fault in edited if isinstance(fault, Fault)]
    if filters.caption == "auto" and ".json" in sample.faults:  # it may hold more captions
        faults.append(sample.faults[".json"])
    return captions, faults
