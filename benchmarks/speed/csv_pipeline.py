"""Measures images per second of the CSV pipeline against Pillow alone on the same files.

    python benchmarks/speed/csv_pipeline.py captions.csv photos/

"Pillow alone" is `Image.open(path).convert("RGB").resize(size)` in one thread. The pipeline
decodes, resizes, tokenizes, packs and batches: once as in validation, and once with every photo
augmented as in training. The jobs alternate, and the best of three rounds counts.
"""

from __future__ import annotations

import argparse
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import checkout  # noqa: F401
import numpy as np
from PIL import Image

from effcap import Tokenizer
from effcap.trainers import Augmentation, CaptionBatches, PhotoFiles, read_csv
from effcap.trainers.options.batches import BatchOptions

ROUNDS = 3
AUGMENTATION = Augmentation(horizontal_flip=True, random_crop=0.5, color_jitter=0.4)


def read_with_pillow(paths: list[Path], size: tuple[int, int]) -> None:
    """Decodes and resizes all photos with Pillow."""
    for path in paths:
        np.asarray(Image.open(path).convert("RGB").resize(size[::-1]))


def read_batches(batches: CaptionBatches, num_threads: int) -> None:
    """Makes all batches of an epoch."""
    with ThreadPoolExecutor(num_threads) as pool:
        for _ in pool.map(batches.__getitem__, range(len(batches))):
            continue


def main() -> None:
    """Prints images per second of each job."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("csv", type=Path, help="CSV file of captions")
    parser.add_argument("images", type=Path, help="folder of photos")
    parser.add_argument("--photos", type=int, default=1000, help="maximum photos (default: 1000)")
    parser.add_argument("--size", type=int, default=224, help="height and width (default: 224)")
    parser.add_argument("--threads", type=int, default=2, help="threads (default: 2)")
    arguments = parser.parse_args()

    examples = read_csv(arguments.csv, arguments.images).examples
    examples = [e for e in examples if e.path.is_file()][: arguments.photos]
    paths, size = [example.path for example in examples], (arguments.size, arguments.size)
    tokenizer = Tokenizer.train([text for e in examples for text in e.captions], 2000)
    options = BatchOptions(num_threads=arguments.threads)
    plain, augmented = (
        CaptionBatches(
            examples,
            PhotoFiles(paths, size, augmentation=augmentation),
            tokenizer,
            1024,
            options,
        )
        for augmentation in (None, AUGMENTATION)
    )
    jobs = {
        "Pillow alone": lambda: read_with_pillow(paths, size),
        f"pipeline, {arguments.threads} threads": lambda: read_batches(plain, arguments.threads),
        "pipeline with augmentation": lambda: read_batches(augmented, arguments.threads),
    }
    best = dict.fromkeys(jobs, float("inf"))
    for _ in range(ROUNDS):
        for name, job in jobs.items():
            started = time.perf_counter()
            job()
            best[name] = min(best[name], time.perf_counter() - started)
    reference = best["Pillow alone"]
    print(f"{len(examples)} photos to {size[0]}x{size[1]}, padding {plain.padding:.1%} of tokens")
    for name, seconds in best.items():
        rate = len(examples) / seconds
        print(f"{name:28} {rate:7.0f} images/s {reference / seconds:6.2f}x")


if __name__ == "__main__":
    main()
