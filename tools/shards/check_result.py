"""The result of checking a shard, and its two files.

NAME.npz  locations and captions of the usable photos (see `ShardIndex`), and what was left out
NAME.idx  the usable samples in the format of NVIDIA DALI's webdataset reader (`index_paths`)
"""

from __future__ import annotations

import json
import os
import re
import zipfile
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple
from urllib.parse import quote

import numpy as np

from effcap.trainers.data.shards.filters import shorten
from effcap.trainers.data.shards.shard_index import (
    IndexedSample,
    ShardIndex,
    is_remote,
    read_arrays,
)
from effcap.trainers.data.shards.tar_samples import TarSample
from effcap.utils.files import write_text_atomically

BLANKS = re.compile(r"\s+")
DALI_VERSION = "v1.2"
SAMPLE, CAPTION, SHARD = "sample", "caption", "shard"


class LeftOut(NamedTuple):
    """An entry that was left out.

    Attributes:
        kind: "sample", "caption" (of a sample with other captions) or "shard" (a part of it).
        key: key of the sample, or "".
        reason: reason that is counted.
        detail: details of this entry.
    """

    kind: str
    key: str
    reason: str
    detail: str


@dataclass(frozen=True)
class CheckedShard:
    """The usable samples of a shard, and what was left out.

    Attributes:
        index: index of the usable samples.
        dali_lines: DALI's line for each of them.
        left_out: entries that were left out, in the order of the tar, then duplicate captions.
        filters_key: `Filters.key` of the check.
    """

    index: ShardIndex
    dali_lines: list[str]
    left_out: list[LeftOut]
    filters_key: str

    @classmethod
    def read(cls, path: Path) -> CheckedShard:
        """Reads NAME.npz.

        Raises:
            FileNotFoundError: the file does not exist.
            ValueError: the file is damaged or of another version.
        """
        arrays = read_arrays(path, ("lines", "left_out", "options"))
        return cls(
            ShardIndex.read(path),
            arrays["lines"].tobytes().decode().split("\n")[:-1],
            [LeftOut(*entry) for entry in json.loads(arrays["left_out"].tobytes())],
            str(arrays["options"]),
        )

    def write_for_dali(self, path: Path) -> None:
        """Writes NAME.idx beside NAME.npz atomically; `path` is that of NAME.npz."""
        path.parent.mkdir(parents=True, exist_ok=True)
        header = f"{DALI_VERSION} {len(self.dali_lines)}\n"
        write_text_atomically(dali_path(path), header + self._dali_text)

    def write(self, path: Path) -> None:
        """Writes NAME.npz atomically; call this last, since it marks the shard as checked."""
        extra = {
            "lines": _bytes(self._dali_text),
            "left_out": _bytes(json.dumps(self.left_out)),
            "options": np.array(self.filters_key),
        }
        self.index.write(path, extra)

    @property
    def _dali_text(self) -> str:
        return "".join(f"{line}\n" for line in self.dali_lines)

    def without(self, marked: np.ndarray, reason: str, filters_key: str) -> CheckedShard:
        """Returns a copy without some captions, and without samples that have no others.

        Args:
            marked: (M,) bool, captions to leave out.
            reason: reason for leaving them out.
            filters_key: `Filters.key` of the copy.
        """
        samples, dali_lines, left_out = [], [], list(self.left_out)
        index = self.index
        for i in range(len(index)):
            key, texts = index.key(i), index.captions(i)
            marks = marked[index.first[i] : index.first[i + 1]]
            kept = [text for text, mark in zip(texts, marks, strict=True) if not mark]
            removed = [shorten(text) for text, mark in zip(texts, marks, strict=True) if mark]
            if kept:
                location = (int(index.offsets[i]), int(index.sizes[i]), int(index.checksums[i]))
                samples.append(IndexedSample(key, *location, kept))
                dali_lines.append(self.dali_lines[i])
                left_out += [LeftOut(CAPTION, key, reason, text) for text in removed]
            else:
                left_out.append(LeftOut(SAMPLE, key, reason, removed[0]))
        new_index = ShardIndex.from_samples(
            index.shard, samples, index.tar_bytes, index.tar_time_ns
        )
        return CheckedShard(new_index, dali_lines, left_out, filters_key)


def is_foreign(path: Path) -> bool:
    """Returns whether a file is a valid .npz other than a shard index."""
    try:
        with zipfile.ZipFile(path) as file:
            return "key_text.npy" not in file.namelist()
    except (OSError, zipfile.BadZipFile):
        return False


def is_up_to_date(shard: str, path: Path, filters_key: str) -> bool:
    """Returns whether an index was made from this tar with these filters.

    A local tar is compared by size and time of modification, a remote one by its address.
    """
    try:
        arrays = read_arrays(path, ("shard", "tar_bytes", "tar_time_ns", "options"))
    except (FileNotFoundError, ValueError):
        return False
    if str(arrays["options"]) != filters_key:
        return False
    if is_remote(shard):
        return str(arrays["shard"]) == shard
    status = os.stat(shard)
    indexed = (int(arrays["tar_bytes"]), int(arrays["tar_time_ns"]))
    return indexed == (status.st_size, status.st_mtime_ns)


def dali_path(path: Path) -> Path:
    """Returns the path of NAME.idx for NAME.npz."""
    return path.with_suffix(".idx")


def dali_line(sample: TarSample) -> str:
    """Returns a line of DALI's index: suffix, offset, size and name of each member.

    DALI ends a name at the first blank, and uses names only in messages, so blanks are escaped as
    in URLs. The photo comes first.
    """
    members = sorted(sample.members.items(), key=lambda item: item[0] != sample.image)
    return " ".join(
        f"{suffix[1:]} {member.offset} {member.size} {BLANKS.sub(_quoted, member.name)}"
        for suffix, member in members
        if member.kind == "file" and suffix not in sample.faults and not BLANKS.search(suffix)
    )


def _quoted(match: re.Match[str]) -> str:
    return quote(match.group())


def _bytes(text: str) -> np.ndarray:
    return np.frombuffer(text.encode(), np.uint8)
