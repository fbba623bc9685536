"""Compares training an adapter with training all of a captioner: step time, memory, sizes.

    python benchmarks/speed/lora_step.py --model vit-gpt2 --targets c_attn c_fc

Each kind runs in a process of its own, from random weights in full size, on random images; the
processes take turns, so that both see the same machine. "runtime" is the memory before the first
step, "peak" that of the whole process. The adapter is written as PEFT's files.

    adapter  trains an adapter alone, the rest is frozen
    decoder  trains the decoder, as `effcap train` does without an adapter
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import checkout  # noqa: F401
import numpy as np
from memory import peak_memory

from effcap.tools.cli.terminal import start_keras

KINDS = ("adapter", "decoder")


def measure(kind: str, arguments: argparse.Namespace) -> dict[str, Any]:
    """Trains some steps and returns times and sizes."""
    start_keras()
    import keras

    from effcap import Captioner

    captioner = Captioner.from_hparams(arguments.model)
    if kind == "adapter":
        captioner.add_adapter(rank=arguments.rank, targets=arguments.targets)
    captioner.compile(keras.optimizers.AdamW(1e-5), jit_compile=False)
    rng = np.random.default_rng(0)
    height, width = captioner.encoder.image_size
    shape = (arguments.batch_size, arguments.length)
    tokens = rng.integers(0, captioner.decoder.vocabulary_size, shape).astype(np.int32)  # (B,T)
    inputs = {
        "images": rng.integers(0, 256, (len(tokens), height, width, 3)).astype(np.float32),
        "tokens": tokens,
        "segments": np.ones_like(tokens),
    }
    weights = np.ones(shape, np.float32)  # (B,T)
    before, seconds = peak_memory(), []
    for _ in range(arguments.steps + 1):
        started = time.perf_counter()
        captioner.train_on_batch(inputs, tokens, weights)
        seconds.append(time.perf_counter() - started)
    result: dict[str, Any] = {
        "seconds": float(np.median(seconds[1:])),  # the first step compiles
        "runtime": before,
        "peak": peak_memory(),
        "tensors": len(captioner.trainable_weights),
        "parameters": sum(int(np.prod(w.shape)) for w in captioner.trainable_weights),
    }
    if kind == "adapter":
        with tempfile.TemporaryDirectory() as folder:
            captioner.save_adapter(folder)
            result["bytes"] = sum(path.stat().st_size for path in Path(folder).iterdir())
    return result


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--model", default="vit-gpt2")
    parser.add_argument("--targets", nargs="+", default=["c_attn", "c_fc"])
    parser.add_argument("--rank", type=int, default=8)
    parser.add_argument("--batch-size", type=int, default=8)
    parser.add_argument("--length", type=int, default=24, help="tokens of a caption")
    parser.add_argument("--steps", type=int, default=3)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--kind", choices=KINDS, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.kind:
        print(json.dumps(measure(arguments.kind, arguments)))
        return
    results: dict[str, list[dict[str, Any]]] = {kind: [] for kind in KINDS}
    for _ in range(arguments.rounds):
        for kind in KINDS:
            command = [sys.executable, __file__, *sys.argv[1:], "--kind", kind]
            output = subprocess.run(command, check=True, capture_output=True, text=True).stdout
            results[kind].append(json.loads(output.splitlines()[-1]))
    for kind, rounds in results.items():
        seconds = np.median([result["seconds"] for result in rounds])
        peak = max(result["peak"] for result in rounds)
        print(
            f"{kind:8} {rounds[0]['parameters']:>13,} parameters in {rounds[0]['tensors']} "
            f"tensors, {seconds:.2f} s per step of {arguments.batch_size}, peak {peak / 1e9:.2f} "
            f"GB, of which {rounds[0]['runtime'] / 1e9:.2f} before the first step"
        )
    ratio = np.median(
        [one["seconds"] / other["seconds"] for one, other in zip(*results.values(), strict=True)]
    )
    print(f"a step of the adapter takes {ratio:.2f} of the other's time")
    print(f"files of the adapter: {results['adapter'][0]['bytes'] / 1e6:.2f} MB")


if __name__ == "__main__":
    main()
