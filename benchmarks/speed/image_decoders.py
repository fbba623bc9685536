"""Measures photos per second of the image decoders: Pillow, DALI on the CPU and on a GPU.

    pip install 'effcap[dali]'
    python benchmarks/speed/image_decoders.py --photos photos/

Each decodes the same JPEGs in batches, and resizes them to 224 x 224 pixels, as in training on
shards. They take turns; the best of the rounds counts. Without a GPU, that of DALI is left out.
"""

from __future__ import annotations

import argparse
import time
from itertools import cycle, islice
from pathlib import Path

import checkout
import numpy as np

from effcap.tools.cli.terminal import start_keras

ROUNDS = 5


def main() -> None:
    """Prints a row per decoder."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    default = checkout.ROOT / "res" / "photos"
    parser.add_argument("--photos", type=Path, default=default, help="folder (default: res/photos)")
    parser.add_argument("--batch-size", type=int, default=64, help="photos (default: 64)")
    parser.add_argument("--batches", type=int, default=2, help="batches per round (default: 2)")
    parser.add_argument("--side", type=int, default=224, help="pixels (default: 224)")
    parser.add_argument("--threads", type=int, default=2, help="of DALI (default: 2)")
    arguments = parser.parse_args()

    start_keras()
    from effcap.trainers.data.augmentation import View
    from effcap.trainers.data.shards.dali import DaliDecoder, has_dali, has_dali_gpu
    from effcap.trainers.data.shards.image_decoder import PillowDecoder

    paths = sorted(x for x in arguments.photos.iterdir() if x.suffix.lower() in (".jpg", ".jpeg"))
    if not paths:
        parser.error(f"Expected a folder with JPEGs. Received: {arguments.photos}")
    count = arguments.batch_size
    photos = [path.read_bytes() for path in islice(cycle(paths), count)]
    views, flip = [View()] * count, np.zeros(count, bool)
    size = (arguments.side, arguments.side)
    decoders = {"pillow": PillowDecoder(size)}
    devices = ["cpu"] * has_dali() + ["gpu"] * (has_dali() and has_dali_gpu())
    decoders |= {
        f"dali-{device}": DaliDecoder(size, "squash", count, arguments.threads, device)
        for device in devices
    }
    best = dict.fromkeys(decoders, float("inf"))
    for _ in range(ROUNDS):
        for name, decoder in decoders.items():
            started = time.perf_counter()
            for _ in range(arguments.batches):
                images, failures = decoder.decode(photos, views, flip)
                assert not failures
                np.asarray(images[:1])  # waits for a GPU
            best[name] = min(best[name], time.perf_counter() - started)
    pixels = sum(map(len, photos)) / count / 1e3
    print(f"{len(paths)} JPEGs of {pixels:.0f} kB on average to {size[0]}x{size[1]}")
    for name, seconds in best.items():
        rate = count * arguments.batches / seconds
        print(f"{name:10} {rate:9.1f} photos/s {best['pillow'] / seconds:6.2f}x")
    for device in {"cpu", "gpu"} - set(devices):
        print(f"dali-{device}: not measured, {'no GPU' if has_dali() else 'DALI is missing'}")


if __name__ == "__main__":
    main()
