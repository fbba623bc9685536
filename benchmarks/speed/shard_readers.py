"""Images per second of shards read by EffCap's readers and by a plain webdataset loop, in one run.

    python benchmarks/shard_readers.py 'shards/{00000..00009}.tar'

The shards must have been indexed (`effcap index`). "indexed" reads photos at any place of a shard,
as for local ones, "streamed" from beginning to end, as for remote ones. The plain loop is
webdataset's own: `WebDataset(shards).decode("pil")`, resized and stacked, without captions in
tokens; with a thread more, through its own loader threads, it cannot go, so it is one. All make
batches of 32. They take turns, and the best of three rounds counts.

    python benchmarks/shard_readers.py --memory 200000 'shards/*.tar'

reads that many photos and prints the memory in use as it goes on.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from itertools import islice

import numpy as np
from PIL import Image

from effcap import Tokenizer
from effcap.trainers.batching.prefetch import ahead
from effcap.trainers.data.augmentation import Augmentation
from effcap.trainers.data.shards.batches import ShardBatches
from effcap.trainers.data.shards.dataset import Shards, read_shards
from effcap.trainers.data.shards.image_decoder import make_decoder
from effcap.trainers.data.shards.skipped import Losses

BATCH, ROUNDS = 32, 3


def plain(shards: list[str], size: tuple[int, int], photos: int) -> None:
    """webdataset and Pillow, as their documentation has it."""
    import webdataset

    dataset = webdataset.WebDataset(shards, shardshuffle=False).decode("pil").to_tuple("jpg", "txt")
    images = []
    for image, _ in islice(dataset, photos):
        images.append(np.asarray(image.convert("RGB").resize(size[::-1], Image.BICUBIC)))
        if len(images) == BATCH:
            np.stack(images)  # (B,h,w,3)
            images = []


def make(data: Shards, size: tuple[int, int], decoder: str, threads: int, stream: bool):
    """Batches of shards."""
    batches = ShardBatches(
        data.indexes,
        data.passes,
        Tokenizer.train(data.captions()[:10_000], 2000),
        1024,
        decoder=make_decoder(decoder, size, "squash", BATCH, threads),
        losses=Losses(sum(map(len, data.indexes)), 1.0),
        augmentation=Augmentation(),
        block=2048,
        batch_size=BATCH,
        threads=threads,
    )
    if stream:
        batches.remote = set(range(len(data.indexes)))
    return batches


def read(batches: ShardBatches, photos: int, tell: Callable[[int], None] | None = None) -> int:
    """Reads batches of one epoch after another; number of photos read."""
    done = 0
    while done < photos:
        for _ in ahead(batches, 0, len(batches)):
            done += BATCH
            if tell is not None:
                tell(done)
            if done >= photos:
                break
        batches.start_epoch(batches.epoch + 1)
    return done


def memory() -> float:
    """Megabytes of this process in memory."""
    with open("/proc/self/status") as status:
        return next(int(line.split()[1]) / 1024 for line in status if line.startswith("VmRSS"))


def watch_memory(batches: ShardBatches, photos: int) -> None:
    """Reads, and prints the memory in use."""
    every = max(BATCH, photos // 10 // BATCH * BATCH)

    def tell(done: int) -> None:
        if done % every == 0:
            print(f"{done:9} photos {memory():7.0f} MB", flush=True)

    read(batches, photos, tell)
    print(batches.losses() or "nothing lost")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("shards", nargs="+")
    parser.add_argument("--photos", type=int, default=1000, help="per round")
    parser.add_argument("--size", type=int, default=224, help="height and width in pixels")
    parser.add_argument("--threads", type=int, nargs="+", default=[1, 2])
    parser.add_argument("--memory", type=int, metavar="PHOTOS", help="only watch the memory")
    parser.add_argument("--decoder", default="dali-cpu", help="for --memory")
    arguments = parser.parse_args()
    data, size = read_shards(arguments.shards), (arguments.size, arguments.size)
    if arguments.memory:
        watch_memory(make(data, size, arguments.decoder, 2, False), arguments.memory)
        return
    photos = min(arguments.photos, sum(map(len, data.indexes)))
    names = [index.shard for index in data.indexes]
    jobs: dict[str, Callable[[], object]] = {
        "plain webdataset and Pillow": lambda: plain(names, size, photos)
    }
    for threads in arguments.threads:
        for decoder, stream in (("dali-cpu", False), ("pillow", False), ("pillow", True)):
            batches = make(data, size, decoder, threads, stream)
            title = f"{decoder}, {'streamed' if stream else 'indexed'}, threads: {threads}"
            jobs[title] = lambda batches=batches: read(batches, photos)
    best = dict.fromkeys(jobs, float("inf"))
    for _ in range(ROUNDS):
        for name, job in jobs.items():
            started = time.perf_counter()
            job()
            best[name] = min(best[name], time.perf_counter() - started)
    reference = best["plain webdataset and Pillow"]
    print(f"{photos} photos to {size[0]}x{size[1]}")
    for name, seconds in best.items():
        print(f"{name:32} {photos / seconds:7.0f} images/s {reference / seconds:6.2f}x")


if __name__ == "__main__":
    main()
