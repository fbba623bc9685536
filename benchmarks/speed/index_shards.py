"""Samples per second of `effcap index` against a plain loop over the same shards, in one run.

    python benchmarks/index_shards.py --samples 100000

The shards are made: photos of 256x256 pixels, a caption each. The plain loops are Python's tarfile
and Pillow in one process, once with `verify`, which reads headers alone, once decoding all pixels.
`effcap index` decodes, finds captions, and writes the indexes.
"""

from __future__ import annotations

import argparse
import io
import os
import subprocess
import sys
import tarfile
import tempfile
import time
from pathlib import Path

import numpy as np
from PIL import Image, ImageFilter

from effcap.trainers.data.shards import find_shards, read_indexes

PHOTOS = 500  # different ones
PER_SHARD = 10_000


def make_shards(folder: Path, samples: int) -> None:
    rng = np.random.default_rng(0)
    photos = []
    for _ in range(PHOTOS):
        noise = Image.fromarray(rng.integers(0, 256, (64, 64, 3), np.uint8)).resize((256, 256))
        file = io.BytesIO()
        noise.filter(ImageFilter.GaussianBlur(1)).save(file, "JPEG", quality=85)
        photos.append(file.getvalue())
    for first in range(0, samples, PER_SHARD):
        with tarfile.open(folder / f"{first // PER_SHARD:05d}.tar", "w") as tar:
            for i in range(first, min(first + PER_SHARD, samples)):
                caption = f"A photo with the number {i}, of nothing but coloured blots."
                for suffix, data in (("jpg", photos[i % PHOTOS]), ("txt", caption.encode())):
                    member = tarfile.TarInfo(f"{i:09d}.{suffix}")
                    member.size = len(data)
                    tar.addfile(member, io.BytesIO(data))


def plain(shards: list[str], decode: bool) -> int:
    good = 0
    for shard in shards:
        with tarfile.open(shard) as tar:
            for member in tar:
                data = tar.extractfile(member).read()
                if member.name.endswith(".jpg"):
                    image = Image.open(io.BytesIO(data))
                    if decode:
                        image.load()
                    else:
                        image.verify()
                    good += 1
    return good


def index(folder: Path, processes: int) -> None:
    command = [sys.executable, "-m", "effcap", "index", str(folder), "--processes", str(processes)]
    subprocess.run(command, check=True, capture_output=True)


def fresh(folder: Path, processes: int) -> None:
    for path in (*folder.glob("*.npz"), *folder.glob("*.idx")):
        path.unlink()
    index(folder, processes)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("--samples", type=int, default=100_000)
    parser.add_argument("--processes", type=int, default=os.cpu_count())
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        make_shards(folder, arguments.samples)
        shards = find_shards([folder])
        size = sum(map(os.path.getsize, shards))
        jobs = {
            "tarfile and Pillow, verify": lambda: plain(shards, False),
            "tarfile and Pillow, decode": lambda: plain(shards, True),
            "effcap index, 1 process": lambda: fresh(folder, 1),
            f"effcap index, {arguments.processes} processes": lambda: fresh(
                folder, arguments.processes
            ),
            "effcap index, up to date": lambda: index(folder, 1),
            "read_indexes": lambda: read_indexes(shards),
        }
        print(f"{arguments.samples} samples in {len(shards)} shards, {size / 1e9:.2f} GB")
        for name, job in jobs.items():
            started = time.perf_counter()
            job()
            seconds = time.perf_counter() - started
            pace = arguments.samples / seconds
            print(f"{name:28} {seconds:8.1f} s {pace:10.0f} samples/s", flush=True)


if __name__ == "__main__":
    main()
