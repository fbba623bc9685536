"""The check of one shard, as it runs in a process of its own."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from effcap.trainers.data.shards.check_result import (
    CAPTION,
    SAMPLE,
    SHARD,
    Checked,
    LeftOut,
    dali_line,
    dali_path,
    is_up_to_date,
)
from effcap.trainers.data.shards.filters import Fault, Filters
from effcap.trainers.data.shards.shard_index import IndexedSample, ShardIndex, is_remote
from effcap.trainers.data.shards.tar import TarWalk, open_shard
from effcap.trainers.data.shards.tar_samples import Sample, read_samples


@dataclass(frozen=True)
class ShardSummary:
    """What the check of a shard came to.

    Attributes:
        shard: path or URL.
        path: of its index.
        samples, captions: how many are kept.
        counts: how much was left out, by (what, reason); see `LeftOut`.
        problem: why the shard could not be read at all; empty where it could.
        known: whether its index was up to date, so that it was not read again.
    """

    shard: str
    path: Path
    samples: int = 0
    captions: int = 0
    counts: Counter[tuple[str, str]] | None = None
    problem: str = ""
    known: bool = False

    @classmethod
    def of(cls, shard: str, path: Path, checked: Checked, known: bool = False) -> ShardSummary:
        """The summary of what was found."""
        counts = Counter((entry.what, entry.reason) for entry in checked.left_out)
        index = checked.index
        captions = len(index.caption_ends) - 1
        return cls(shard, path, len(index), captions, counts, known=known)


@dataclass(frozen=True)
class CheckJob:
    """A shard to check, and where its index goes; `final` if there is nothing more to do to it."""

    shard: str
    path: Path
    filters: Filters
    options: str
    final: bool

    def __call__(self, advance: Callable[[int], None]) -> ShardSummary:
        """Checks the shard, unless its index is up to date, and writes the index."""
        try:
            if is_up_to_date(self.shard, self.path, self.options):
                checked = Checked.read(self.path)
                if self.final and not dali_path(self.path).is_file():
                    checked.write_for_dali(self.path)
                advance(steps(self.shard))
                return ShardSummary.of(self.shard, self.path, checked, known=True)
            checked = check_shard(self.shard, self.filters, advance, self.options)
        except (OSError, ValueError) as error:
            return ShardSummary(self.shard, self.path, problem=str(error))
        if self.final:
            checked.write_for_dali(self.path)
        checked.write(self.path)
        return ShardSummary.of(self.shard, self.path, checked)


def check_shard(
    shard: str,
    filters: Filters,
    advance: Callable[[int], None] | None = None,
    options: str | None = None,
) -> Checked:
    """Reads a whole shard and checks every sample.

    Args:
        shard: path or URL of a tar.
        filters: what to keep. `max_duplicates` is for `index_shards`, which sees all shards.
        advance: called with how much was done, out of `steps`.
        options: to keep with the result; by default those of `filters`.

    Raises:
        OSError: when it cannot be opened or read.
        NotATar: when it is empty, compressed, or no tar.
    """
    advance = advance or (lambda count: None)
    before = None if is_remote(shard) else os.stat(shard)
    with open_shard(shard) as file:
        walk = TarWalk(file, advance if before is not None else lambda count: advance(0))
        samples = read_samples(walk, filters)
    if before is None:
        advance(steps(shard))
    kept: list[IndexedSample] = []
    lines: list[str] = []
    left_out: list[LeftOut] = []
    if walk.note:
        left_out.append(LeftOut(SHARD, "", "shard not whole", walk.note))
    elif not samples:
        left_out.append(LeftOut(SHARD, "", "shard without samples", ""))
    for sample in samples:
        captions, faults = _judge(sample, filters)
        if captions:
            image = sample.members[sample.image]
            place = (image.offset, image.size, sample.checksums[sample.image])
            kept.append(IndexedSample(sample.key, *place, captions))
            lines.append(dali_line(sample))
        else:
            faults = faults[:1]
        what = CAPTION if captions else SAMPLE
        left_out += [LeftOut(what, sample.key, *fault) for fault in faults]
    about = () if before is None else (before.st_size, before.st_mtime_ns)
    return Checked(ShardIndex.of(shard, kept, *about), lines, left_out, options or filters.key)


def _judge(sample: Sample, filters: Filters) -> tuple[list[str], list[Fault]]:
    """The captions of a sample that are kept, and why others are not; none for no sample."""
    fault = sample.fault()
    texts = fault or sample.captions(filters.caption)
    if isinstance(texts, Fault):
        return [], [texts]
    edited = [filters.edited(text) for text in texts]
    captions = [text for text in edited if isinstance(text, str)]
    faults = [fault for fault in edited if isinstance(fault, Fault)]
    if filters.caption == "auto" and ".json" in sample.faults:  # it may have held more captions
        faults.append(sample.faults[".json"])
    return captions, faults


def steps(shard: str) -> int:
    """How much there is to do: the bytes of a local shard; 1 for a remote one, of unknown size."""
    try:
        return 1 if is_remote(shard) else os.path.getsize(shard)
    except OSError:  # gone; the check will tell
        return 0
