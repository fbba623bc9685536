"""Photos per second of region features read by EffCap and by h5py, in one run.

    python benchmarks/region_reading.py --photos 2000
    python benchmarks/region_reading.py --index 120000

The features are made up: 50 regions of width 2048 of each photo, in batches of 32 filled up to 50.
"h5py" does what VisualGPT's and M2's readers do for each photo, `file[name][()]`, in one file that
is kept open. All files are read from memory, where they were just written to, or with --cold from
the disk. The jobs take turns, and the best of three rounds counts.

`--index` makes a file like COCO's, of that many photos with three datasets each, but of one region,
and tells how long it takes to open it, to find photos in it, and to look at all their shapes.
"""

from __future__ import annotations

import argparse
import os
import tempfile
import time
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import h5py
import numpy as np

from effcap.trainers.data.regions.region_file import RegionFile, keys_of

BATCH, ROUNDS, REGIONS, CHANNELS = 32, 3, 50, 2048


def make_file(path: Path, photos: int, compression: str | None = None) -> None:
    """Features of so many photos, half of them zero as after a ReLU."""
    rng = np.random.default_rng(0)
    with h5py.File(path, "w") as file:
        for number in range(photos):
            features = np.maximum(rng.standard_normal((REGIONS, CHANNELS), np.float32), 0)
            file.create_dataset(f"{number}_features", data=features, compression=compression)


def read_plainly(file: h5py.File, names: Iterable[str]) -> np.ndarray:
    """A batch through h5py alone."""
    batch = np.zeros((BATCH, REGIONS, CHANNELS), np.float32)  # (B,S,C)
    for i, name in enumerate(names):
        features = file[name][()]
        batch[i, : len(features)] = features
    return batch


def time_reading(path: Path, photos: int, cold: bool) -> None:
    """Prints the table."""
    names = [f"{number}_features" for number in np.random.default_rng(1).permutation(photos)]
    groups = [names[start : start + BATCH] for start in range(0, photos, BATCH)]
    plain, ours = h5py.File(path, "r"), RegionFile(path)

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
        "h5py": lambda group: read_plainly(plain, group),
        "RegionFile": lambda group: ours.load(group, REGIONS, CHANNELS),
    }
    for threads in (1, 2, 4):
        best = dict.fromkeys(jobs, 0.0)
        for _ in range(ROUNDS):
            for name, read in jobs.items():
                best[name] = max(best[name], run(read, threads))
        told = ", ".join(f"{name} {rate:6.0f} photos/s" for name, rate in best.items())
        print(f"  threads: {threads}: {told}, {best['RegionFile'] / best['h5py']:.1f}x")


def time_index(folder: Path, photos: int) -> None:
    """Prints how long a file of many photos takes to open."""
    path = folder / "index.hdf5"
    numbers = np.random.default_rng(0).permutation(5 * photos)[:photos]
    with h5py.File(path, "w") as file:
        for number in numbers:
            for name, width in (("features", CHANNELS), ("boxes", 4), ("cls_prob", 20)):
                file[f"{number}_{name}"] = np.ones((1, width), np.float32)
    names = [f"COCO_train2014_{number:012}.jpg" for number in numbers]
    started = time.perf_counter()
    file = RegionFile(path)
    opened = time.perf_counter()
    found = [file.find(keys_of(name)) for name in names]
    known = time.perf_counter()
    for name in found:
        file.place(name)
    ended = time.perf_counter()
    print(f"{photos} photos, {3 * photos} datasets")
    print(f"  opened in {opened - started:.2f} s, all photos found in {known - opened:.2f} s more,")
    print(f"  all shapes and places looked at in {ended - known:.2f} s more")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("--photos", type=int, default=2000)
    parser.add_argument("--cold", action="store_true", help="read from the disk")
    parser.add_argument("--index", type=int, metavar="PHOTOS", help="only time the opening")
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
            print(f"{photos} photos, {compression or 'stored as they are'}")
            time_reading(path, photos, arguments.cold)


if __name__ == "__main__":
    main()
