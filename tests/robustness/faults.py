"""Damages shards in every way that happens in practice, and accounts for every photo.

    python tests/robustness/faults.py
    python tests/robustness/faults.py --image-decoder dali-cpu

For each fault, a shard is damaged before it is indexed or while an epoch is read. A row per fault
gives the photos that the index left out, those skipped while reading, those in batches, and those
that are in batches twice. Exits with 1 if a photo is in none of these, or if undamaged photos are
missing. The last row lets the disk run full while a run writes its checkpoint. (`kill.py --data
shards` kills runs.)
"""

from __future__ import annotations

import argparse
import io
import json
import os
import subprocess
import sys
import tarfile
import tempfile
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import NamedTuple

import checkout  # noqa: F401
import numpy as np
from PIL import Image

from effcap.tokenizers import Tokenizer
from effcap.tools.shards import index_shards
from effcap.trainers.data.shards import ShardIndex, find_shards, index_path, read_shards
from helpers.captioners import tiny_hparams
from helpers.cli_process import effcap, environment
from helpers.tar_maker import write_tar

SHARDS, PER_SHARD, SIDE = 4, 100, 64  # number of shards, photos per shard, pixels
TOTAL = SHARDS * PER_SHARD
RNG = np.random.default_rng(0)
FILE_LIMIT = 200_000  # bytes; less than a checkpoint, more than any other file of a run
Member = tuple[str, bytes]  # file name and content


def photo(number: int) -> bytes:
    """Returns a JPEG of noise."""
    pixels = np.random.default_rng(number).integers(0, 256, (SIDE, SIDE, 3), dtype=np.uint8)
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "JPEG")
    return file.getvalue()


def caption(number: int) -> str:
    """Returns a caption that identifies the photo."""
    return f"photo number {number}"


def members(shard: int) -> list[Member]:
    """Returns the files of a shard."""
    return [
        member
        for number in range(shard * PER_SHARD, (shard + 1) * PER_SHARD)
        for member in (
            (f"{number:09}.jpg", photo(number)),
            (f"{number:09}.txt", caption(number).encode()),
        )
    ]


# Faults


def change_members(path: Path, change: Callable[[int, str, bytes], Member | None]) -> None:
    """Rewrites a shard with `change(number, suffix, data)` for each file; None removes the file."""
    changed = []
    for name, data in members(int(path.stem)):
        stem, suffix = name.split(".")
        changed.append(change(int(stem), suffix, data))
    write_tar(path, [member for member in changed if member is not None])


def every_tenth(suffix: str, damage: Callable[[bytes], bytes | None]) -> Callable[[Path], None]:
    """Returns a fault that changes every tenth file of a type; None removes the file."""

    def change(number: int, own_suffix: str, data: bytes) -> Member | None:
        content = damage(data) if own_suffix == suffix and number % 10 == 0 else data
        return None if content is None else (f"{number:09}.{own_suffix}", content)

    return lambda path: change_members(path, change)


def truncate(path: Path) -> None:
    """Cuts a shard in half."""
    with path.open("r+b") as file:
        file.truncate(path.stat().st_size // 2)


def flip_bytes(data: bytes) -> bytes:
    """Flips eight bytes."""
    flipped = np.frombuffer(data, np.uint8).copy()
    flipped[RNG.integers(len(flipped), size=8)] ^= 255
    return flipped.tobytes()


def use_long_keys(path: Path) -> None:
    """Gives all samples keys of 300 characters."""
    change_members(path, lambda number, suffix, data: (f"{'k' * 300}{number:09}.{suffix}", data))


def use_dotted_keys(path: Path) -> None:
    """Gives all samples keys with dots."""
    change_members(path, lambda number, suffix, data: (f"v1.2.{number:09}.{suffix}", data))


def append(path: Path) -> None:
    """Appends the samples of another shard."""
    with tarfile.open(path, "a") as tar:
        for name, data in members(0):
            member = tarfile.TarInfo(f"x{name}")
            member.size = len(data)
            tar.addfile(member, io.BytesIO(data))


def rotate_photos(path: Path) -> None:
    """Gives each sample the next one's photo, which leaves the size of the shard."""
    files = members(int(path.stem))
    photos = [data for name, data in files if name.endswith("jpg")]
    rotated = iter(photos[1:] + photos[:1])
    write_tar(
        path,
        [(name, next(rotated) if name.endswith("jpg") else data) for name, data in files],
    )


def flip_in_photos(path: Path, step: int) -> None:
    """Flips a byte of every `step`-th photo in the shard."""
    index = ShardIndex.read(index_path(str(path)))
    with path.open("r+b") as file:
        for i in range(0, len(index), step):
            position = int(index.offsets[i] + RNG.integers(index.sizes[i]))
            file.seek(position)
            byte = file.read(1)[0]
            file.seek(position)
            file.write(bytes([byte ^ 255]))


class Fault(NamedTuple):
    """A fault.

    Attributes:
        moment: when it happens: "indexing" before the shard is indexed, "reading" during an epoch.
        damage: damages a shard.
    """

    moment: str
    damage: Callable[[Path], object]


FAULTS = {
    "none": Fault("indexing", lambda path: None),
    "truncated tar": Fault("indexing", truncate),
    "empty tar": Fault("indexing", lambda path: path.write_bytes(b"")),
    "empty photo, every 10th": Fault("indexing", every_tenth("jpg", lambda data: b"")),
    "text in a .jpg, every 10th": Fault("indexing", every_tenth("jpg", lambda data: b"<html>")),
    "JPEG cut in half, every 10th": Fault(
        "indexing", every_tenth("jpg", lambda data: data[: len(data) // 2])
    ),
    "flipped bytes, every 10th": Fault("indexing", every_tenth("jpg", flip_bytes)),
    "no caption, every 10th": Fault("indexing", every_tenth("txt", lambda data: None)),
    "caption not in UTF-8, every 10th": Fault(
        "indexing", every_tenth("txt", lambda data: b"caf\xe9")
    ),
    "keys of 300 characters": Fault("indexing", use_long_keys),
    "keys with dots": Fault("indexing", use_dotted_keys),
    "shard deleted": Fault("reading", lambda path: path.unlink()),
    "shard truncated": Fault("reading", truncate),
    "shard appended to": Fault("reading", append),
    "shard replaced by another": Fault("reading", rotate_photos),
    "a byte flipped in 1 % of photos": Fault("reading", lambda path: flip_in_photos(path, 100)),
    "a byte flipped in 10 % of photos": Fault("reading", lambda path: flip_in_photos(path, 10)),
}


# Accounting


class Account(NamedTuple):
    """Where the photos of an epoch are.

    Attributes:
        left_out: number of photos that the index left out.
        skipped: number of photos skipped while reading.
        counts: how often each photo is in a batch.
    """

    left_out: int
    skipped: int
    counts: Counter[int]

    @property
    def num_repeated(self) -> int:
        """Number of photos that are in batches twice."""
        return sum(count > 1 for count in self.counts.values())

    @property
    def is_complete(self) -> bool:
        """Whether every photo is accounted for once, and all undamaged ones are in batches."""
        undamaged = [n for n in range(TOTAL) if n // PER_SHARD != 1]
        return (
            len(self.counts) + self.left_out + self.skipped == TOTAL
            and not self.num_repeated
            and all(number in self.counts for number in undamaged)
        )


def try_fault(fault: Fault, root: Path, image_decoder: str) -> Account:
    """Writes shards, damages one, indexes them and reads an epoch."""
    for shard in range(SHARDS):
        write_tar(root / f"{shard:05}.tar", members(shard))
    damaged = root / "00001.tar"
    if fault.moment == "indexing":
        fault.damage(damaged)
    summary = index_shards(find_shards([root]))
    captioner = SimpleNamespace(
        encoder=SimpleNamespace(
            input_keys=("images",), image_size=(32, 32), fit="squash", resample=None
        ),
        tokenizer=Tokenizer.train([caption(number) for number in range(TOTAL)], 300),
        decoder=SimpleNamespace(max_text_length=64),
    )
    dataset = read_shards(root, image_decoder=image_decoder, shuffle_block=64)
    is_shuffled = fault.moment == "indexing"
    batches = dataset.batches(captioner, batch_size=8, shuffle=is_shuffled, max_bad=1.0)
    counts: Counter[int] = Counter()
    for index in range(len(batches)):
        _, targets, weights = batches[index]
        for row in range(len(targets)):
            tokens = targets[row][weights[row] > 0]
            if len(tokens):
                text = captioner.tokenizer.decode(tokens[:-1])
                counts[int(text.removeprefix("photo number "))] += 1
        if index == 0 and fault.moment == "reading":
            fault.damage(damaged)
    return Account(TOTAL - summary.num_samples, len(batches.skipped), counts)


def try_full_disk(root: Path) -> tuple[str, str]:
    """Trains with too little space for a checkpoint, then resumes with enough.

    Returns:
        The error line of the first run, and what went wrong ("" for nothing).
    """
    for shard in range(SHARDS):
        write_tar(root / f"{shard:05}.tar", members(shard))
    index_shards(find_shards([root]))
    (root / "tiny.json").write_text(json.dumps(tiny_hparams(hidden_dim=64)))
    command = effcap(
        *("train", "dali", "--shards", root, "--model", root / "tiny.json", "--resume"),
        *("--backbone-weights", "none", "--steps", 12, "--batch-size", 4, "--out", root / "run"),
        *("--set", "run.checkpoint_steps=4", "--set", "decoder.vocabulary_size=300"),
    )
    limit = "import resource, signal, sys, os; signal.signal(signal.SIGXFSZ, signal.SIG_IGN); "
    limit += f"resource.setrlimit(resource.RLIMIT_FSIZE, ({FILE_LIMIT},) * 2); "
    limit += "os.execv(sys.argv[1], sys.argv[1:])"
    arguments = {"capture_output": True, "text": True, "env": environment()}
    full = subprocess.run([sys.executable, "-c", limit, *command], **arguments)
    error = full.stderr[full.stderr.rfind("effcap: error:") :].strip()
    if full.returncode != 2 or "Cannot write" not in error or "checkpoint" not in error:
        return error, f"expected an error about the checkpoint: {full.stderr[-300:]}"
    resumed = subprocess.run(command, **arguments)
    return error, "" if resumed.returncode == 0 else resumed.stderr[-300:]


def main() -> int:
    """Tries all faults; returns the exit code."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument(
        "--image-decoder", default="pillow", help="pillow or dali-cpu (default: pillow)"
    )
    image_decoder = parser.parse_args().image_decoder
    print(f"{TOTAL} photos in {SHARDS} shards, a fault in one of them; {image_decoder}")
    print(f"{'fault':34} {'during':8} {'left out':>8} {'skipped':>7} {'read':>6} {'twice':>6}")
    is_good = True
    for name, fault in FAULTS.items():
        with tempfile.TemporaryDirectory() as folder:
            account = try_fault(fault, Path(folder), image_decoder)
        print(
            f"{name:34} {fault.moment:8} {account.left_out:8} {account.skipped:7} "
            f"{len(account.counts):6} {account.num_repeated:6}  "
            f"{'complete' if account.is_complete else 'WRONG'}",
            flush=True,
        )
        is_good &= account.is_complete
    with tempfile.TemporaryDirectory() as folder:
        error, problem = try_full_disk(Path(folder))
    print(f"{'disk full at a checkpoint':34} {error[:90]}")
    print(f"{'resumed':34} {f'WRONG: {problem}' if problem else 'finished'}")
    return 0 if is_good and not problem else 1


if __name__ == "__main__":
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    raise SystemExit(main())
