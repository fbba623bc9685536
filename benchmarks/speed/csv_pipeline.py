"""Images per second of the CSV pipeline against Pillow alone on the same files, in one run.

    python benchmarks/csv_pipeline.py captions.csv photos/

Pillow alone is `Image.open(path).convert("RGB").resize(size)` in one thread; the pipeline decodes,
resizes, tokenizes, packs and batches; once as in validation, and once with every photo varied as in
training (mirrored, cropped to half its area or more, in other light). They take turns, and the best
of three rounds counts.
"""

from __future__ import annotations

import argparse
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
from PIL import Image

from effcap import Tokenizer
from effcap.trainers import Augmentation, CaptionBatches, PhotoFiles, read_csv

VARIED = Augmentation(mirror=True, crop=0.5, colour=0.4)


def pillow(paths: list[Path], size: tuple[int, int]) -> None:
    for path in paths:
        np.asarray(Image.open(path).convert("RGB").resize(size[::-1]))


def pipeline(batches: CaptionBatches) -> None:
    with ThreadPoolExecutor(batches.workers) as pool:
        for _ in pool.map(batches.__getitem__, range(len(batches))):
            continue


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("csv", type=Path)
    parser.add_argument("images", type=Path)
    parser.add_argument("--photos", type=int, default=1000, help="how many of them at most")
    parser.add_argument("--size", type=int, default=224, help="height and width in pixels")
    parser.add_argument("--threads", type=int, default=2)
    arguments = parser.parse_args()

    photos, _ = read_csv(arguments.csv, arguments.images)
    photos = [photo for photo in photos if photo.path.is_file()][: arguments.photos]
    paths, size = [photo.path for photo in photos], (arguments.size, arguments.size)
    tokenizer = Tokenizer.train([text for photo in photos for text in photo.captions], 2000)
    batches, varied = (
        CaptionBatches(
            photos,
            PhotoFiles(paths, size, augmentation=augmentation),
            tokenizer,
            1024,
            threads=arguments.threads,
        )
        for augmentation in (None, VARIED)
    )
    jobs = {
        "Pillow alone": lambda: pillow(paths, size),
        f"pipeline, {arguments.threads} threads": lambda: pipeline(batches),
        "the same, photos varied": lambda: pipeline(varied),
    }
    best = dict.fromkeys(jobs, float("inf"))
    for _ in range(3):
        for name, job in jobs.items():
            started = time.perf_counter()
            job()
            best[name] = min(best[name], time.perf_counter() - started)
    alone = best["Pillow alone"]
    print(f"{len(photos)} photos to {size[0]}x{size[1]}, padding {batches.padding:.1%} of tokens")
    for name, seconds in best.items():
        print(f"{name:24} {len(photos) / seconds:7.0f} images/s {alone / seconds:6.2f}x")


if __name__ == "__main__":
    main()
