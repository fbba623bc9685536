"""Measures captions per second with random weights: greedy and 5 beams, 1 and 8 photos.

    python benchmarks/speed/decoding.py --model gpt2-124m

The work per token does not depend on the weights. Every caption has exactly `--tokens` tokens out
of a vocabulary as large as GPT-2's. captioning.py compares engines and transformers in one run.
"""

from __future__ import annotations

import argparse
import time

import checkout  # noqa: F401
import numpy as np
from random_captioners import gpt2_tokenizer

from effcap.tools.cli.terminal import start_keras


def main() -> None:
    """Prints one row per sampler and number of photos."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("--model", default="gpt2-124m", help="variant (default: gpt2-124m)")
    parser.add_argument("--tokens", type=int, default=20, help="tokens per caption (default: 20)")
    parser.add_argument("--repeats", type=int, default=3, help="timed runs (default: 3)")
    arguments = parser.parse_args()

    start_keras()
    from effcap import Beam, Captioner, Greedy

    captioner = Captioner.from_hparams(arguments.model, gpt2_tokenizer())
    tokens = arguments.tokens
    samplers = {
        "greedy": Greedy(max_new_tokens=tokens, min_new_tokens=tokens),
        "beam 5": Beam(num_beams=5, max_new_tokens=tokens, min_new_tokens=tokens),
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
            rate, latency = photos / best, 1000 * best / photos
            compiling = first - best
            print(f"{name:8} {photos:6} {rate:11.2f} {latency:11.0f} {compiling:10.1f}", flush=True)


if __name__ == "__main__":
    main()
