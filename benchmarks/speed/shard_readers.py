"""Measures images per second of EffCap's shard readers against a plain webdataset loop.

    python benchmarks/speed/shard_readers.py 'shards/{00000..00009}.tar'

The shards must be indexed (`effcap index`). "indexed" reads photos at any position, as for local
shards; "streamed" reads shards from start to end, as for remote ones. The plain loop is
`WebDataset(shards).decode("pil")`, resized and stacked in one thread, without tokenized captions.
All make batches of 32. The jobs alternate, and the best of three rounds counts.

    python benchmarks/speed/shard_readers.py --memory 200000 'shards/*.tar'

reads that many photos and prints the memory in use.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from itertools import islice
from types import SimpleNamespace

import checkout  # noqa: F401
import numpy as np
from PIL import Image

from effcap import Tokenizer
from effcap.trainers.batching.prefetch import prefetch
from effcap.trainers.data.shards import read_shards
from effcap.trainers.data.shards.batches import ShardBatches

BATCH_SIZE, ROUNDS, SHUFFLE_BLOCK = 32, 3, 2048
PLAIN = "plain webdataset and Pillow"


def read_with_webdataset(shards: list[str], size: tuple[int, int], photos: int) -> None:
    """Reads photos as webdataset's documentation does."""
    import webdataset

    dataset = webdataset.WebDataset(shards, shardshuffle=False).decode("pil").to_tuple("jpg", "txt")
    images = []
    for image, _ in islice(dataset, photos):
        images.append(np.asarray(image.convert("RGB").resize(size[::-1], Image.BICUBIC)))
        if len(images) == BATCH_SIZE:
            np.stack(images)  # (B, h, w, 3)
            images = []


def make_batches(
    shards: list[str], size: tuple[int, int], image_decoder: str, threads: int, stream: bool = False
) -> ShardBatches:
    """Returns batches of shards."""
    dataset = read_shards(shards, image_decoder=image_decoder, shuffle_block=SHUFFLE_BLOCK)
    captioner = SimpleNamespace(
        encoder=SimpleNamespace(
            input_keys=("images",), image_size=size, fit="squash", resample=None
        ),
        tokenizer=Tokenizer.train(dataset.captions()[:10_000], 2000),
        decoder=SimpleNamespace(max_text_length=1024),
    )
    batches = dataset.batches(captioner, batch_size=BATCH_SIZE, max_bad=1.0, num_threads=threads)
    if stream:
        batches.fetcher.remote = set(range(len(dataset.indexes)))
    return batches


def read(
    batches: ShardBatches, photos: int, on_progress: Callable[[int], None] | None = None
) -> None:
    """Reads batches of one epoch after the other."""
    done = 0
    while done < photos:
        for _ in prefetch(batches, 0, len(batches)):
            done += BATCH_SIZE
            if on_progress is not None:
                on_progress(done)
            if done >= photos:
                break
        batches.start_epoch(batches.epoch + 1)


def memory_in_use() -> float:
    """Returns the resident memory of this process in MB."""
    with open("/proc/self/status") as status:
        return next(int(line.split()[1]) / 1024 for line in status if line.startswith("VmRSS"))


def print_memory(batches: ShardBatches, photos: int) -> None:
    """Reads photos and prints the memory in use ten times."""
    step = max(BATCH_SIZE, photos // 10 // BATCH_SIZE * BATCH_SIZE)

    def on_progress(done: int) -> None:
        if done % step == 0:
            print(f"{done:9} photos {memory_in_use():7.0f} MB", flush=True)

    read(batches, photos, on_progress)
    print(batches.skipped_summary() or "no photos skipped")


def main() -> None:
    """Prints images per second of each job."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("shards", nargs="+", help="files, folders or patterns")
    parser.add_argument("--photos", type=int, default=1000, help="per round (default: 1000)")
    parser.add_argument("--size", type=int, default=224, help="height and width (default: 224)")
    parser.add_argument(
        "--threads", type=int, nargs="+", default=[1, 2], help="numbers of threads (default: 1 2)"
    )
    parser.add_argument("--memory", type=int, metavar="PHOTOS", help="only print the memory in use")
    parser.add_argument(
        "--image-decoder", default="dali-cpu", help="decoder for --memory (default: dali-cpu)"
    )
    arguments = parser.parse_args()
    shards, size = arguments.shards, (arguments.size, arguments.size)
    if arguments.memory:
        print_memory(make_batches(shards, size, arguments.image_decoder, 2), arguments.memory)
        return
    indexes = read_shards(shards).indexes
    photos = min(arguments.photos, sum(map(len, indexes)))
    names = [index.shard for index in indexes]
    jobs: dict[str, Callable[[], object]] = {
        PLAIN: lambda: read_with_webdataset(names, size, photos)
    }
    for threads in arguments.threads:
        for image_decoder, stream in (("dali-cpu", False), ("pillow", False), ("pillow", True)):
            batches = make_batches(shards, size, image_decoder, threads, stream)
            title = f"{image_decoder}, {'streamed' if stream else 'indexed'}, threads: {threads}"
            jobs[title] = lambda batches=batches: read(batches, photos)
    best = dict.fromkeys(jobs, float("inf"))
    for _ in range(ROUNDS):
        for name, job in jobs.items():
            started = time.perf_counter()
            job()
            best[name] = min(best[name], time.perf_counter() - started)
    reference = best[PLAIN]
    print(f"{photos} photos to {size[0]}x{size[1]}")
    for name, seconds in best.items():
        print(f"{name:32} {photos / seconds:7.0f} images/s {reference / seconds:6.2f}x")


if __name__ == "__main__":
    main()
