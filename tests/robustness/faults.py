"""Harms shards in every way that happens, indexes them, reads an epoch, and counts every photo.

    python benchmarks/faults.py

Prints, for each fault, how many photos the index left out, how many were lost while reading, how
many were seen, and how many of those twice. What was neither seen nor counted would be lost in
silence: the benchmark knows each photo's caption, expects every one to be accounted for, and exits
with 1 where one is not. (`benchmarks/kill.py --data dali` kills runs, and this benchmark's last row
lets the disk run full while a run writes its checkpoint.)
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

import numpy as np
from PIL import Image

from effcap import Tokenizer
from effcap.trainers.data.augmentation import Augmentation
from effcap.trainers.data.shards import ShardIndex, find_shards, index_path, index_shards
from effcap.trainers.data.shards.batches import ShardBatches
from effcap.trainers.data.shards.dataset import read_shards
from effcap.trainers.data.shards.image_decoder import make_decoder
from effcap.trainers.data.shards.skipped import Losses

SHARDS, PER_SHARD, SIDE = 4, 100, 64
TOTAL = SHARDS * PER_SHARD
RNG = np.random.default_rng(0)
Member = tuple[str, bytes]


def photo(number: int) -> bytes:
    """A JPEG of noise."""
    pixels = np.random.default_rng(number).integers(0, 256, (SIDE, SIDE, 3), dtype=np.uint8)
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "JPEG")
    return file.getvalue()


def caption(number: int) -> str:
    """Tells its photo's number."""
    return f"photo number {number}"


def members(shard: int) -> list[Member]:
    """Names and contents of a shard's files."""
    return [
        member
        for number in range(shard * PER_SHARD, (shard + 1) * PER_SHARD)
        for member in (
            (f"{number:09}.jpg", photo(number)),
            (f"{number:09}.txt", caption(number).encode()),
        )
    ]


def write(path: Path, files: list[Member]) -> None:
    """A tar of those files."""
    with tarfile.open(path, "w") as tar:
        for name, data in files:
            info = tarfile.TarInfo(name)
            info.size = len(data)
            tar.addfile(info, io.BytesIO(data))


def rewrite(path: Path, change: Callable[[int, str, bytes], Member | None]) -> None:
    """The shard with its files changed, or left out, by `change(number, suffix, data)`."""
    shard = int(path.stem)
    files = []
    for name, data in members(shard):
        stem, suffix = name.split(".")
        changed = change(int(stem), suffix, data)
        if changed is not None:
            files.append(changed)
    write(path, files)


def each(number: int, of: int) -> bool:
    return number % of == 0


def truncated(path: Path) -> None:
    with path.open("r+b") as file:
        file.truncate(path.stat().st_size // 2)


def emptied(path: Path) -> None:
    path.write_bytes(b"")


def harm(change: Callable[[int, str, bytes], bytes | None]) -> Callable[[Path], None]:
    """A fault that changes the contents of files; None removes them."""

    def apply(path: Path) -> None:
        def changed(number: int, suffix: str, data: bytes) -> Member | None:
            new = change(number, suffix, data)
            return None if new is None else (f"{number:09}.{suffix}", new)

        rewrite(path, changed)

    return apply


def flipped(data: bytes) -> bytes:
    flips = np.frombuffer(data, np.uint8).copy()
    flips[RNG.integers(len(flips), size=8)] ^= 255
    return flips.tobytes()


def long_keys(path: Path) -> None:
    rewrite(path, lambda number, suffix, data: (f"{'k' * 300}{number:09}.{suffix}", data))


def dotted_keys(path: Path) -> None:
    rewrite(path, lambda number, suffix, data: (f"v1.2.{number:09}.{suffix}", data))


def grown(path: Path) -> None:
    write(path.with_suffix(".new"), [(f"x{name}", data) for name, data in members(0)])
    with tarfile.open(path, "a") as tar, tarfile.open(path.with_suffix(".new")) as more:
        for member in more:
            tar.addfile(member, more.extractfile(member))


def other_photos(path: Path) -> None:
    """A tar of the same size with other photos in the same places."""
    files = members(int(path.stem))
    photos = [data for name, data in files if name.endswith("jpg")]
    swapped = iter(photos[1:] + photos[:1])
    write(
        path,
        [(name, next(swapped) if name.endswith("jpg") else data) for name, data in files],
    )


# When a fault comes (before the index is made, or while an epoch is read), and the fault.
FAULTS: dict[str, tuple[str, Callable[[Path], object]]] = {
    "none": ("before", lambda path: None),
    "truncated tar": ("before", truncated),
    "empty tar": ("before", emptied),
    "zero-byte image, every 10th": (
        "before",
        harm(lambda n, suffix, data: b"" if suffix == "jpg" and each(n, 10) else data),
    ),
    "text in a .jpg, every 10th": (
        "before",
        harm(lambda n, suffix, data: b"<html>" if suffix == "jpg" and each(n, 10) else data),
    ),
    "JPEG cut in half, every 10th": (
        "before",
        harm(lambda n, s, data: data[: len(data) // 2] if s == "jpg" and each(n, 10) else data),
    ),
    "bit flips, every 10th": (
        "before",
        harm(lambda n, suffix, data: flipped(data) if suffix == "jpg" and each(n, 10) else data),
    ),
    "no txt, every 10th": (
        "before",
        harm(lambda n, suffix, data: None if suffix == "txt" and each(n, 10) else data),
    ),
    "caption not in UTF-8, every 10th": (
        "before",
        harm(lambda n, suffix, data: b"caf\xe9" if suffix == "txt" and each(n, 10) else data),
    ),
    "keys of 300 characters": ("before", long_keys),
    "keys with dots": ("before", dotted_keys),
    "shard deleted": ("reading", lambda path: path.unlink()),
    "shard truncated": ("reading", truncated),
    "shard appended to": ("reading", grown),
    "shard replaced by another": ("reading", other_photos),
    "a byte flipped in 1 % of photos": ("reading", lambda path: flip_photos(path, 100)),
    "a byte flipped in 10 % of photos": ("reading", lambda path: flip_photos(path, 10)),
}


def flip_photos(path: Path, of: int) -> None:
    """Flips a byte of every so-many-th photo, where it lies."""
    index = ShardIndex.read(index_path(str(path)))
    with path.open("r+b") as file:
        for i in range(0, len(index), of):
            place = int(index.offsets[i] + RNG.integers(index.sizes[i]))
            file.seek(place)
            byte = file.read(1)[0]
            file.seek(place)
            file.write(bytes([byte ^ 255]))


def numbers(batches: ShardBatches, after_first: Callable[[], object]) -> Counter[int]:
    """How often an epoch shows each photo, by its caption."""
    found: Counter[int] = Counter()
    for place in range(len(batches)):
        _, targets, weights = batches[place]
        for row in range(len(targets)):
            tokens = targets[row][weights[row] > 0]
            if len(tokens):
                text = batches.tokenizer.decode(tokens[:-1])
                found[int(text.removeprefix("photo number "))] += 1
        if place == 0:
            after_first()
    return found


def try_fault(name: str, root: Path, decoder: str) -> bool:
    """Prints a row; whether every photo is accounted for."""
    when, fault = FAULTS[name]
    for shard in range(SHARDS):
        write(root / f"{shard:05}.tar", members(shard))
    harmed = root / "00001.tar"
    if when == "before":
        fault(harmed)
    shards = find_shards([root])
    summary = index_shards(shards)
    data = read_shards([root])
    tokenizer = Tokenizer.train([caption(number) for number in range(TOTAL)], 300)
    batches = ShardBatches(
        data.indexes,
        data.passes,
        tokenizer,
        64,
        decoder=make_decoder(decoder, (32, 32), "squash", 8, 1),
        losses=Losses(TOTAL, 1.0),
        augmentation=Augmentation(),
        block=64,
        batch_size=8,
        shuffle=when == "before",
    )
    seen = numbers(batches, (lambda: fault(harmed)) if when == "reading" else lambda: None)
    left_out = TOTAL - summary.samples
    twice = sum(count > 1 for count in seen.values())
    good = len(seen) + left_out + len(batches.lost) == TOTAL and not twice
    good &= all(number in seen for number in range(PER_SHARD)) and len(seen) >= 3 * PER_SHARD
    print(
        f"{name:34} {when:8} {left_out:8} {len(batches.lost):6} {len(seen):6} {twice:6}  "
        f"{'all accounted for' if good else 'WRONG'}",
        flush=True,
    )
    return good


def try_full_disk(root: Path) -> bool:
    """A run that may write no file as large as a checkpoint stops with a line, and then goes on."""
    from effcap.config import load_hparams
    from effcap.trainers.engine.smoke import shrink

    for shard in range(SHARDS):
        write(root / f"{shard:05}.tar", members(shard))
    index_shards(find_shards([root]))
    (root / "tiny.json").write_text(json.dumps(shrink(load_hparams("lite0-small"))))
    command = [sys.executable, "-m", "effcap", "train", "dali", "--shards", str(root)]
    command += ["--model", str(root / "tiny.json"), "--backbone-weights", "none", "--resume"]
    command += ["--steps", "12", "--batch-size", "4", "--checkpoint-steps", "4"]
    command += ["--vocab-size", "300", "--out", str(root / "run")]
    limit = "import resource, signal, sys, os; signal.signal(signal.SIGXFSZ, signal.SIG_IGN); "
    limit += "resource.setrlimit(resource.RLIMIT_FSIZE, (200_000,) * 2); "
    limit += "os.execv(sys.argv[1], sys.argv[1:])"
    full = subprocess.run([sys.executable, "-c", limit, *command], capture_output=True, text=True)
    error = full.stderr[full.stderr.rfind("effcap: error:") :].strip()
    then = subprocess.run(command, capture_output=True, text=True)
    good = full.returncode == 2 and "Expected room" in error and then.returncode == 0
    print(f"{'disk full at a checkpoint':34} {error[:90]}\n{'':34} then --resume: ", end="")
    print("the run ended well" if good else f"WRONG: {then.stderr[-300:]}")
    return good


def main() -> int:
    """Tries all faults."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("--decoder", default="pillow", help="pillow or dali-cpu")
    arguments = parser.parse_args()
    print(f"{TOTAL} photos in {SHARDS} shards, a fault in one of them; {arguments.decoder}")
    print(f"{'fault':34} {'when':8} {'left out':>8} {'lost':>6} {'seen':>6} {'twice':>6}")
    good = []
    for name in FAULTS:
        with tempfile.TemporaryDirectory() as folder:
            good.append(try_fault(name, Path(folder), arguments.decoder))
    with tempfile.TemporaryDirectory() as folder:
        good.append(try_full_disk(Path(folder)))
    return 0 if all(good) else 1


if __name__ == "__main__":
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    raise SystemExit(main())
