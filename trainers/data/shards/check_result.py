"""What the check of a shard found, and the two files that it is kept in.

NAME.npz  where the kept photos lie, their captions (see `ShardIndex`), and what was left out
NAME.idx  the kept samples as NVIDIA DALI's webdataset reader takes them (`index_paths`)
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

from effcap.trainers.data.shards.filters import short
from effcap.trainers.data.shards.shard_index import (
    IndexedSample,
    ShardIndex,
    is_remote,
    read_arrays,
)
from effcap.trainers.data.shards.tar_samples import Sample
from effcap.utils.files import write_text_atomically

BLANKS = re.compile(r"\s+")
DALI_VERSION = "v1.2"
SAMPLE, CAPTION, SHARD = "sample", "caption", "shard"


class LeftOut(NamedTuple):
    """Something left out: a sample; a caption of a sample that has others; or part of a shard."""

    what: str
    key: str
    reason: str
    detail: str


@dataclass(frozen=True)
class Checked:
    """What is kept of a shard, and what is not.

    Attributes:
        index: the kept samples.
        lines: a line for DALI for each of them.
        left_out: what is not kept, in the order of the tar; duplicates after the rest.
        options: `Filters.key` of the check.
    """

    index: ShardIndex
    lines: list[str]
    left_out: list[LeftOut]
    options: str

    @classmethod
    def read(cls, path: Path) -> Checked:
        """From NAME.npz; FileNotFoundError and ValueError as `ShardIndex.read`."""
        arrays = read_arrays(path, ("lines", "left_out", "options"))
        return cls(
            ShardIndex.read(path),
            arrays["lines"].tobytes().decode().split("\n")[:-1],
            [LeftOut(*entry) for entry in json.loads(arrays["left_out"].tobytes())],
            str(arrays["options"]),
        )

    def write_for_dali(self, path: Path) -> None:
        """Writes NAME.idx beside NAME.npz, which is `path`; whole or not at all."""
        path.parent.mkdir(parents=True, exist_ok=True)
        write_text_atomically(dali_path(path), f"{DALI_VERSION} {len(self.lines)}\n{self._text}")

    def write(self, path: Path) -> None:
        """Writes NAME.npz at `path`, whole or not at all; last, for it tells that all is done."""
        more = {
            "lines": _bytes(self._text),
            "left_out": _bytes(json.dumps(self.left_out)),
            "options": np.array(self.options),
        }
        self.index.write(path, more)

    @property
    def _text(self) -> str:
        return "".join(f"{line}\n" for line in self.lines)

    def without(self, captions: np.ndarray, reason: str, options: str) -> Checked:
        """Without the captions marked in (M,) bool, and without samples that have no other."""
        samples, lines, left_out = [], [], list(self.left_out)
        index = self.index
        for i in range(len(index)):
            key, texts = index.key(i), index.captions(i)
            marks = captions[index.first[i] : index.first[i + 1]]
            kept = [text for text, marked in zip(texts, marks, strict=True) if not marked]
            if kept:
                place = (int(index.offsets[i]), int(index.sizes[i]), int(index.checksums[i]))
                samples.append(IndexedSample(key, *place, kept))
                lines.append(self.lines[i])
            gone = [short(text) for text, marked in zip(texts, marks, strict=True) if marked]
            if kept:
                left_out += [LeftOut(CAPTION, key, reason, text) for text in gone]
            else:
                left_out.append(LeftOut(SAMPLE, key, reason, gone[0]))
        about = (index.shard, samples, index.tar_bytes, index.tar_time_ns)
        return Checked(ShardIndex.of(*about), lines, left_out, options)


def is_foreign(path: Path) -> bool:
    """Whether a file is there that is whole, and no index of ours."""
    try:
        with zipfile.ZipFile(path) as file:
            return "key_text.npy" not in file.namelist()
    except (OSError, zipfile.BadZipFile):
        return False


def is_up_to_date(shard: str, path: Path, options: str) -> bool:
    """Whether the index in `path` is of this very tar, checked with these options.

    Of a remote shard only its address is compared.
    """
    try:
        arrays = read_arrays(path, ("shard", "tar_bytes", "tar_time_ns", "options"))
    except (FileNotFoundError, ValueError):
        return False
    if str(arrays["options"]) != options:
        return False
    if is_remote(shard):
        return str(arrays["shard"]) == shard
    status = os.stat(shard)
    known = (int(arrays["tar_bytes"]), int(arrays["tar_time_ns"]))
    return known == (status.st_size, status.st_mtime_ns)


def dali_path(path: Path) -> Path:
    """NAME.idx of NAME.npz."""
    return path.with_suffix(".idx")


def dali_line(sample: Sample) -> str:
    """A sample as DALI's index has it: suffix, offset, size and name of every member.

    DALI takes blanks for the end of a name, and the name for nothing but messages: they are written
    as in URLs. The image comes first.
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
