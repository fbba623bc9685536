"""Measures samples per second of `effcap index` against plain loops over the same shards.

    python benchmarks/speed/index_shards.py --samples 100000

The shards are generated: photos of 256x256 pixels with one caption each. The plain loops use
Python's tarfile and Pillow in one process, once with `verify`, which reads headers only, and once
decoding all pixels. `effcap index` decodes all photos, extracts captions and writes the indexes.
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

import checkout
import numpy as np
from PIL import Image, ImageFilter

from effcap.trainers.data.shards import find_shards, read_indexes

PHOTOS = 500  # distinct photos
PER_SHARD = 10_000  # samples per shard


def make_shards(folder: Path, samples: int) -> None:
    """Writes shards of blurred noise."""
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
                caption = f"A photo with the number {i}, of nothing but colored blots."
                for suffix, data in (("jpg", photos[i % PHOTOS]), ("txt", caption.encode())):
                    member = tarfile.TarInfo(f"{i:09d}.{suffix}")
                    member.size = len(data)
                    tar.addfile(member, io.BytesIO(data))


def read_with_tarfile(shards: list[str], decode: bool) -> None:
    """Reads every photo with tarfile and Pillow."""
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


def index(folder: Path, processes: int, fresh: bool = True) -> None:
    """Runs `effcap index`, by default after removing all indexes."""
    if fresh:
        for path in (*folder.glob("*.npz"), *folder.glob("*.idx")):
            path.unlink()
    command = [sys.executable, "-m", "effcap.tools", "index", str(folder)]
    command += ["--processes", str(processes)]
    subprocess.run(command, check=True, capture_output=True, cwd=checkout.ROOT)


def main() -> None:
    """Prints samples per second of each job."""
    cpus = os.cpu_count() or 1
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument(
        "--samples", type=int, default=100_000, help="number of samples (default: 100000)"
    )
    parser.add_argument(
        "--processes", type=int, default=cpus, help=f"processes (default: {cpus}, one per core)"
    )
    arguments = parser.parse_args()
    processes = arguments.processes
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        make_shards(folder, arguments.samples)
        shards = find_shards([folder])
        size = sum(map(os.path.getsize, shards))
        jobs = {
            "tarfile and Pillow, verify": lambda: read_with_tarfile(shards, False),
            "tarfile and Pillow, decode": lambda: read_with_tarfile(shards, True),
            "effcap index, 1 process": lambda: index(folder, 1),
            f"effcap index, {processes} processes": lambda: index(folder, processes),
            "effcap index, up to date": lambda: index(folder, 1, fresh=False),
            "read_indexes": lambda: read_indexes(shards),
        }
        print(f"{arguments.samples} samples in {len(shards)} shards, {size / 1e9:.2f} GB")
        for name, job in jobs.items():
            started = time.perf_counter()
            job()
            seconds = time.perf_counter() - started
            rate = arguments.samples / seconds
            print(f"{name:28} {seconds:8.1f} s {rate:10.0f} samples/s", flush=True)


if __name__ == "__main__":
    main()
