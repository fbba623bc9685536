"""Captions per second of a variant with random weights: greedy and beam 5, one photo and eight.

    python benchmarks/decoding.py --model gpt2-124m

Weights do not change the work per token. Every caption runs to `--tokens` tokens, since a random
model seldom ends one by itself.
"""

from __future__ import annotations

import argparse
import time

import numpy as np

from effcap import Beam, Captioner, Greedy, Tokenizer
from effcap.tools.cli.terminal import start_keras


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("--model", default="gpt2-124m", help="variant")
    parser.add_argument("--tokens", type=int, default=20, help="tokens per caption")
    parser.add_argument("--repeats", type=int, default=3)
    arguments = parser.parse_args()

    start_keras()
    tokenizer = Tokenizer.train(["a dog runs through the grass"], 300)
    captioner = Captioner.from_hparams(arguments.model, tokenizer)
    tokens = arguments.tokens
    samplers = {
        "greedy": Greedy(max_tokens=tokens, min_tokens=tokens),
        "beam 5": Beam(max_tokens=tokens, min_tokens=tokens),
    }
    print(f"{arguments.model}: {captioner.count_params() / 1e6:.0f} M parameters, {tokens} tokens")
    print(f"{'sampler':8} {'photos':>6} {'captions/s':>11} {'ms/caption':>11} {'compile s':>10}")
    for name, sampler in samplers.items():
        for photos in (1, 8):
            shape = (photos, *captioner.encoder.image_size, 3)
            images = np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8)
            started = time.perf_counter()
            captioner.generate(images, sampler, batch_size=photos)
            first = time.perf_counter() - started
            best = float("inf")
            for _ in range(arguments.repeats):
                started = time.perf_counter()
                captioner.generate(images, sampler, batch_size=photos)
                best = min(best, time.perf_counter() - started)
            rate, each = photos / best, 1000 * best / photos
            print(f"{name:8} {photos:6} {rate:11.2f} {each:11.0f} {first - best:10.1f}", flush=True)


if __name__ == "__main__":
    main()
