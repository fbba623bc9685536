"""Time of captioning with all tokens of GPT-2 and with those of captions, and size of the weights.

    python benchmarks/speed/vocabulary.py --tokenizer gpt2-124M --csv train.csv
    python benchmarks/speed/vocabulary.py --tokenizer gpt2-124M --csv train.csv --precision bfloat16

Weights are random. Both vocabularies take turns, so that a busy machine slows both down.
"""

from __future__ import annotations

import argparse
import csv
import math
import statistics
import time
from pathlib import Path

import numpy as np

import effcap
from effcap.precision import PRECISIONS, dtype_policy


def main() -> None:
    """Prints seconds of processor and wall time for both vocabularies."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--tokenizer", type=Path, required=True, help="folder with GPT-2's files")
    parser.add_argument("--csv", type=Path, required=True, help="captions, column caption")
    parser.add_argument("--model", default="gpt2-124m", help="variant")
    parser.add_argument("--precision", choices=tuple(PRECISIONS), default="float32")
    parser.add_argument("--photos", type=int, default=8)
    parser.add_argument("--tokens", type=int, default=20)
    parser.add_argument("--rounds", type=int, default=5)
    arguments = parser.parse_args()
    with arguments.csv.open(encoding="utf-8", newline="") as file:
        captions = [row["caption"] for row in csv.DictReader(file)]
    tokenizer = effcap.Tokenizer.from_folder(arguments.tokenizer)
    with dtype_policy(PRECISIONS[arguments.precision].caption_policy):
        captioner = effcap.Captioner.from_hparams(arguments.model, tokenizer)
    shape = (arguments.photos, *captioner.encoder.backbone.feature_shape)
    inputs = {"features": np.random.default_rng(0).normal(size=shape).astype(np.float32)}  # (B,S,C)
    # Random weights end captions anywhere: all have the full length.
    sampler = effcap.Beam(min_new_tokens=arguments.tokens, max_new_tokens=arguments.tokens)
    captioner.restrict_vocabulary(captions)
    few = captioner.decoder.output_vocabulary
    print(f"{len(captioner.output_tokens or ())} of {tokenizer.vocabulary_size} tokens")
    num_bytes = sum(
        math.prod(weight.shape) * np.dtype(weight.dtype.replace("bfloat16", "float16")).itemsize
        for weight in captioner.weights
    )
    print(f"weights: {num_bytes / 2**20:.0f} MB")
    times: dict[str, list[tuple[float, float]]] = {"all tokens": [], "few tokens": []}
    for _ in range(arguments.rounds + 1):  # the first compiles
        for name, vocabulary in (("all tokens", None), ("few tokens", few)):
            captioner.decoder.output_vocabulary = vocabulary
            wall, cpu = time.perf_counter(), time.process_time()
            captioner.generate_batch(inputs, sampler)
            times[name].append((time.process_time() - cpu, time.perf_counter() - wall))
    for name, runs in times.items():
        cpu, wall = (statistics.median(values) for values in zip(*runs[1:], strict=True))
        print(f"{name}: {cpu:.2f} s of processor time, {wall:.2f} s")


if __name__ == "__main__":
    main()
