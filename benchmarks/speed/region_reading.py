"""Measures photos per second of region features read by EffCap and by h5py, in one run.

    python benchmarks/speed/region_reading.py --photos 2000
    python benchmarks/speed/region_reading.py --index 120000

The features are generated: 50 regions of width 2048 per photo, in batches of 32. "h5py" does what
VisualGPT's and M2's readers do for each photo, `file[name][()]`, with the file kept open. Files are
read from memory, where they were just written, or with --cold from disk. The jobs alternate, and
the best of three rounds counts.

`--index` makes a file like COCO's, of that many photos with three datasets each but one region per
photo, and measures opening it, finding all photos in it and reading all layouts.
"""

from __future__ import annotations

import argparse
import os
import tempfile
import time
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import checkout  # noqa: F401
import h5py
import numpy as np

from effcap.trainers.data.regions.region_file import RegionFile, candidate_keys

BATCH_SIZE, ROUNDS, NUM_REGIONS, FEATURE_DIM = 32, 3, 50, 2048


def make_file(path: Path, photos: int, compression: str | None = None) -> None:
    """Writes features, half of them zero as after a ReLU."""
    rng = np.random.default_rng(0)
    with h5py.File(path, "w") as file:
        for number in range(photos):
            features = np.maximum(rng.standard_normal((NUM_REGIONS, FEATURE_DIM), np.float32), 0)
            file.create_dataset(f"{number}_features", data=features, compression=compression)


def read_with_h5py(file: h5py.File, names: Iterable[str]) -> np.ndarray:
    """Returns a batch of features (B, S, C)."""
    batch = np.zeros((BATCH_SIZE, NUM_REGIONS, FEATURE_DIM), np.float32)  # (B, S, C)
    for i, name in enumerate(names):
        features = file[name][()]
        batch[i, : len(features)] = features
    return batch


def time_reading(path: Path, photos: int, cold: bool) -> None:
    """Prints photos per second by number of threads."""
    names = [f"{number}_features" for number in np.random.default_rng(1).permutation(photos)]
    groups = [names[start : start + BATCH_SIZE] for start in range(0, photos, BATCH_SIZE)]
    plain_file, region_file = h5py.File(path, "r"), RegionFile(path)

    def run(read: Callable[[list[str]], np.ndarray], threads: int) -> float:
        if cold:
            with path.open("rb") as file:
                os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
        started = time.perf_counter()
        with ThreadPoolExecutor(threads) as pool:
            for _ in pool.map(read, groups):
                pass
        return photos / (time.perf_counter() - started)

    jobs = {
        "h5py": lambda group: read_with_h5py(plain_file, group),
        "RegionFile": lambda group: region_file.load(group, NUM_REGIONS, FEATURE_DIM),
    }
    for threads in (1, 2, 4):
        best = dict.fromkeys(jobs, 0.0)
        for _ in range(ROUNDS):
            for name, read in jobs.items():
                best[name] = max(best[name], run(read, threads))
        rates = ", ".join(f"{name} {rate:6.0f} photos/s" for name, rate in best.items())
        print(f"  threads: {threads}: {rates}, {best['RegionFile'] / best['h5py']:.1f}x")


def time_index(folder: Path, photos: int) -> None:
    """Prints how long opening and searching a file of many photos takes."""
    path = folder / "index.hdf5"
    numbers = np.random.default_rng(0).permutation(5 * photos)[:photos]
    with h5py.File(path, "w") as file:
        for number in numbers:
            for name, width in (("features", FEATURE_DIM), ("boxes", 4), ("cls_prob", 20)):
                file[f"{number}_{name}"] = np.ones((1, width), np.float32)
    photo_names = [f"COCO_train2014_{number:012}.jpg" for number in numbers]
    started = time.perf_counter()
    file = RegionFile(path)
    opened = time.perf_counter()
    datasets = [file.find_dataset(candidate_keys(name)) for name in photo_names]
    searched = time.perf_counter()
    for name in datasets:
        file.layout(name)
    ended = time.perf_counter()
    print(f"{photos} photos, {3 * photos} datasets")
    print(f"  opened in {opened - started:.2f} s, all photos found in {searched - opened:.2f} s,")
    print(f"  all layouts read in {ended - searched:.2f} s")


def main() -> None:
    """Prints the measurements."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("--photos", type=int, default=2000, help="photos per file (default: 2000)")
    parser.add_argument("--cold", action="store_true", help="read from disk")
    parser.add_argument("--index", type=int, metavar="PHOTOS", help="only measure opening a file")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        if arguments.index:
            time_index(folder, arguments.index)
            return
        for compression in (None, "gzip"):
            photos = arguments.photos // (10 if compression else 1)
            path = folder / f"{compression}.hdf5"
            make_file(path, photos, compression)
            print(f"{photos} photos, {compression or 'uncompressed'}")
            time_reading(path, photos, arguments.cold)


if __name__ == "__main__":
    main()
