"""Compares captions and training steps on JAX with transformers on torch, for one GPU or TPU.

    KERAS_BACKEND=jax python benchmarks/speed/accelerator.py --sizes 124m 355m
    KERAS_BACKEND=jax python benchmarks/speed/accelerator.py --sizes tiny --batch-size 4 \
        --python ../torch/bin/python

Needs keras, jax, torch and transformers, but not TensorFlow; torch and transformers may be in
another environment, --python. Both compute in bfloat16 with random weights: EfficientNetV2-S and
GPT-2 here, ViT-B/16 and GPT-2 there, all of it trained. Both stay in processes of their own and
take turns. "tiny" only shows that the script runs.

    captions  photos/s, 5 beams, --tokens tokens, --batch-size photos
    training  images/s of `fit` (a training loop with fused AdamW and autocast in torch), a caption
              of --tokens tokens per image

"of peak" is the share of the arithmetic that the same library reaches in a product of large
matrices in bfloat16, counting only what the model needs: the encoder once per image, each weight of
the decoder once per row and token, and three times that in training.
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from accelerator_effcap import caption_and_train as effcap
from accelerator_torch import caption_and_train as transformers
from workers import Worker, WorkerError, serve, take_turns

LIBRARIES: dict[str, Callable[..., Any]] = {"effcap": effcap, "transformers": transformers}
SIZES = ("tiny", "124m", "355m")
JOBS = ("captions", "training")
BEAMS = 5


def main() -> None:
    """Prints a row per size, job and library."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--sizes", nargs="+", choices=SIZES, default=SIZES[1:])
    parser.add_argument("--jobs", nargs="+", choices=JOBS, default=JOBS)
    parser.add_argument("--batch-size", type=int, default=64, help="photos (default: 64)")
    parser.add_argument("--tokens", type=int, default=20, help="tokens per caption (default: 20)")
    parser.add_argument("--steps", type=int, default=10, help="steps per round (default: 10)")
    parser.add_argument("--rounds", type=int, default=3, help="timed runs of each (default: 3)")
    parser.add_argument("--python", type=Path, default=sys.executable, help="for transformers")
    parser.add_argument("--serve", nargs=3, metavar=("LIBRARY", "JOB", "SIZE"))
    arguments = parser.parse_args()
    if arguments.serve:
        library, job, size = arguments.serve
        serve(lambda: LIBRARIES[library](job, size))
        return
    # JAX would take most of the memory of a GPU that two processes use.
    os.environ.setdefault("XLA_PYTHON_CLIENT_PREALLOCATE", "false")
    os.environ.setdefault("KERAS_BACKEND", "jax")
    print(
        f"{'size':6} {'job':9} {'library':13} {'photos/s':>9} {'ratio':>6} {'of peak':>8}  device"
    )
    for size in arguments.sizes:
        for job in arguments.jobs:
            run(size, job, arguments)


def run(size: str, job: str, arguments: argparse.Namespace) -> None:
    """Measures a job at a size and prints its rows."""
    request = {
        "photos": arguments.batch_size,
        "tokens": arguments.tokens,
        "beams": BEAMS,
        "steps": arguments.steps,
    }
    workers: dict[str, Worker] = {}
    try:
        for library in LIBRARIES:
            python = sys.executable if library == "effcap" else arguments.python
            try:
                workers[library] = Worker([python, __file__, "--serve", library, job, size])
            except WorkerError as error:
                print(f"{size:6} {job:9} without {library}: {error}", flush=True)
        answers = take_turns(workers, request, arguments.rounds)
        seconds = {name: [x["seconds"] for x in of[1:]] for name, of in answers.items()}
        for name, worker in workers.items():
            median = float(np.median(seconds[name]))
            photos = arguments.batch_size * (arguments.steps if job == "training" else 1)
            peer = seconds.get("transformers", [float("nan")] * len(seconds[name]))
            ratio = float(np.median(np.divide(peer, seconds[name])))
            share = answers[name][-1]["operations"] / median / worker.about["peak"]
            print(
                f"{size:6} {job:9} {name:13} {photos / median:9.2f} {ratio:6.2f} {share:8.1%}  "
                f"{worker.about['device']}, {worker.about['peak'] / 1e12:.2f} TFLOP/s",
                flush=True,
            )
    finally:
        for worker in workers.values():
            worker.close()


if __name__ == "__main__":
    main()
