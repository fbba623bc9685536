"""Measures images per second of the CSV pipeline against Pillow alone on the same files.

    python benchmarks/speed/csv_pipeline.py captions.csv photos/
    python benchmarks/speed/csv_pipeline.py captions.csv photos/ --parquet

"Pillow alone" is `Image.open(path).convert("RGB").resize(size)` in one thread. The pipeline
decodes, resizes, tokenizes, packs and batches: once as in validation, and once with every photo
augmented as in training. With --parquet, the same photos are read from a Parquet file, too. The
jobs alternate, and the best of three rounds counts. CPU time depends less than speed on what else
the machine does.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import checkout  # noqa: F401
import numpy as np
from PIL import Image

from effcap import Tokenizer
from effcap.trainers import (
    Augmentation,
    CaptionBatches,
    Example,
    PhotoFiles,
    read_csv,
    read_dataset,
)
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


def write_parquet(examples: list[Example], path: Path) -> None:
    """Writes photos with captions as the Hugging Face hub has them, in groups of 100 rows."""
    import pyarrow
    from pyarrow import parquet

    image = pyarrow.struct([("bytes", pyarrow.binary()), ("path", pyarrow.string())])
    schema = pyarrow.schema([("image", image), ("captions", pyarrow.list_(pyarrow.string()))])
    with parquet.ParquetWriter(path, schema) as writer:
        for start in range(0, len(examples), 100):
            rows = [
                {
                    "image": {"bytes": example.path.read_bytes(), "path": example.name},
                    "captions": example.captions,
                }
                for example in examples[start : start + 100]
            ]
            writer.write_table(pyarrow.Table.from_pylist(rows, schema))


def read_parquet(examples: list[Example], folder: Path) -> list[Example]:
    """Returns the examples, read from a Parquet file in a folder, and prints what that takes."""
    import datasets

    datasets.config.HF_DATASETS_CACHE = folder / "cache"
    path = folder / "photos.parquet"
    write_parquet(examples, path)
    for name in ("first", "next"):
        started = time.perf_counter()
        rows = read_dataset(path).examples
        seconds = time.perf_counter() - started
        print(f"{name} reading of {path.stat().st_size / 1e6:.0f} MB of Parquet: {seconds:.1f} s")
    return rows


def main() -> None:
    """Prints images per second of each job."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("csv", type=Path, help="CSV file of captions")
    parser.add_argument("images", type=Path, help="folder of photos")
    parser.add_argument("--photos", type=int, default=1000, help="maximum photos (default: 1000)")
    parser.add_argument("--size", type=int, default=224, help="height and width (default: 224)")
    parser.add_argument("--threads", type=int, default=2, help="threads (default: 2)")
    parser.add_argument("--parquet", action="store_true", help="also read a Parquet file")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        measure(arguments, Path(folder))


def measure(arguments: argparse.Namespace, folder: Path) -> None:
    """Runs the jobs, with temporary files in a folder."""
    examples = read_csv(arguments.csv, arguments.images).examples
    examples = [e for e in examples if e.path.is_file()][: arguments.photos]
    paths, size = [example.path for example in examples], (arguments.size, arguments.size)
    tokenizer = Tokenizer.train([text for e in examples for text in e.captions], 2000)
    options = BatchOptions(num_threads=arguments.threads)

    def make_batches(
        examples: list[Example], augmentation: Augmentation | None = None
    ) -> CaptionBatches:
        photos = PhotoFiles([x.photo for x in examples], size, augmentation=augmentation)
        return CaptionBatches(examples, photos, tokenizer, 1024, options)

    plain, augmented = make_batches(examples), make_batches(examples, AUGMENTATION)
    jobs = {
        "Pillow alone": lambda: read_with_pillow(paths, size),
        f"pipeline, {arguments.threads} threads": lambda: read_batches(plain, arguments.threads),
        "pipeline with augmentation": lambda: read_batches(augmented, arguments.threads),
    }
    if arguments.parquet:
        rows = make_batches(read_parquet(examples, folder))
        jobs["pipeline from Parquet"] = lambda: read_batches(rows, arguments.threads)
    best = dict.fromkeys(jobs, float("inf"))
    best_cpu = dict.fromkeys(jobs, float("inf"))
    for _ in range(ROUNDS):
        for name, job in jobs.items():
            started, cpu_started = time.perf_counter(), time.process_time()
            job()
            best[name] = min(best[name], time.perf_counter() - started)
            best_cpu[name] = min(best_cpu[name], time.process_time() - cpu_started)
    reference = best["Pillow alone"]
    print(f"{len(examples)} photos to {size[0]}x{size[1]}, padding {plain.padding:.1%} of tokens")
    for name, seconds in best.items():
        rate, cpu = len(examples) / seconds, 1000 * best_cpu[name] / len(examples)
        ratio = reference / seconds
        print(f"{name:28} {rate:7.0f} images/s {ratio:6.2f}x {cpu:6.2f} ms of CPU per image")


if __name__ == "__main__":
    main()
