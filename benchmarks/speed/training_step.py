"""Compares a training step with that of transformers on torch, and times the first step.

    python benchmarks/speed/training_step.py --python ../torch/bin/python

EffCap trains EfficientNetV2-S and GPT-2 124M, transformers ViT-B/16 and GPT-2 124M, both with
cross-attention in every layer, random weights and all of them trained, on `--batch-size` random
images of 224 px with `--captions` captions of `--length` tokens each, by AdamW with clipped
gradients. All stay in processes of their own and take turns. "first" is the first step, which
EffCap compiles, "optimizer" a step of EffCap's optimizer alone, and "ratio" the time of
transformers divided by that of the row, the median over rounds. In bfloat16, weights and optimizer
stay in float32.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from workers import Answer, Worker, serve

SIDE, VOCABULARY = 224, 50257
Step = Callable[[], Any]


def random_batch(size: int, length: int, captions: int) -> tuple[np.ndarray, np.ndarray]:
    """Returns images (B, h, w, 3) and the tokens (B, K, T) of their captions."""
    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, (size, SIDE, SIDE, 3)).astype(np.float32)  # (B,h,w,3)
    tokens = rng.integers(0, VOCABULARY - 1, (size, captions, length))  # (B,K,T)
    return images, tokens.astype(np.int32)


def effcap_steps(size: int, length: int, captions: int, precision: str) -> dict[str, Step]:
    """Returns a training step of EffCap, and one of its optimizer alone."""
    import checkout  # noqa: F401

    from effcap.tools.cli.terminal import start_keras

    start_keras()
    import tensorflow as tf

    from effcap import Captioner
    from effcap.precision import dtype_policy, find_precision
    from effcap.trainers import TrainingOptions
    from effcap.trainers.engine.optimizer import make_optimizer

    backbone = {"network": "efficientnet_v2_s", "trainable_blocks": "all"}
    with dtype_policy(find_precision(precision).training_policy):
        captioner = Captioner.from_hparams("gpt2-124m", encoder={"backbone": backbone})
    optimizer = make_optimizer(TrainingOptions(learning_rate=1e-4), 1000, captioner)
    captioner.compile(optimizer, jit_compile=False)
    optimizer.build(captioner.trainable_variables)
    images, tokens = random_batch(size, length, captions)
    segments = np.broadcast_to(np.arange(1, captions + 1)[:, None], tokens.shape)  # (B,K,T)
    # The captions of a photo follow each other in its row.
    tokens, segments = (x.reshape(size, -1) for x in (tokens, segments))  # 2 x (B,K*T)
    inputs = {"images": images, "tokens": tokens, "segments": segments.astype(np.int32)}
    weights = np.ones(tokens.shape, np.float32)  # (B,K*T)
    targets = np.roll(tokens, -1, axis=1)  # (B,K*T)

    @tf.function
    def optimize() -> None:
        optimizer.apply([1e-3 * tf.ones(x.shape) for x in captioner.trainable_variables])

    return {
        "step": lambda: captioner.train_on_batch(inputs, targets, weights),
        "optimizer": optimize,
    }


def transformers_steps(size: int, length: int, captions: int, precision: str) -> dict[str, Step]:
    """Returns a training step of transformers, in bfloat16 by torch's automatic casts.

    It encodes an image once for each of its captions.
    """
    import torch
    from transformers import (
        GPT2Config,
        GPT2LMHeadModel,
        VisionEncoderDecoderModel,
        ViTConfig,
        ViTModel,
    )

    decoder = GPT2LMHeadModel(GPT2Config(add_cross_attention=True, is_decoder=True))
    model = VisionEncoderDecoderModel(encoder=ViTModel(ViTConfig()), decoder=decoder).train()
    model.config.decoder_start_token_id = model.config.pad_token_id = VOCABULARY - 1
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-4, weight_decay=0.05)
    images, tokens = random_batch(size, length, captions)
    images = images.repeat(captions, axis=0)  # (B,h,w,3) -> (B*K,h,w,3)
    pixels = torch.from_numpy(images.transpose(0, 3, 1, 2).copy()) / 127.5 - 1  # (B*K,3,h,w)
    labels = torch.from_numpy(tokens.reshape(-1, length)).long()  # (B*K,T)

    def step() -> None:
        optimizer.zero_grad()
        with torch.autocast("cpu", torch.bfloat16, enabled=precision == "bfloat16"):
            loss = model(pixel_values=pixels, labels=labels).loss
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()

    return {"step": step}


STEPS = {"effcap": effcap_steps, "transformers": transformers_steps}
PEER = "transformers-float32"
CHOICES = [f"{name}-{precision}" for name in STEPS for precision in ("float32", "bfloat16")]


def create(name: str, sizes: tuple[int, int, int]) -> tuple[Answer, dict[str, Any]]:
    """Returns the function of a process that takes the name of a step and measures it."""
    library, _, precision = name.partition("-")
    steps = STEPS[library](*sizes, precision)

    def answer(request: dict[str, Any]) -> dict[str, Any]:
        started = time.perf_counter()
        steps[request["step"]]()
        return {"seconds": time.perf_counter() - started}

    return answer, {}


def ask(worker: Worker, step: str = "step") -> float:
    """Returns the seconds that a process needs for a step."""
    return worker.ask({"step": step})["seconds"]


def main() -> None:
    """Prints the seconds of each and their ratios."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--python", type=Path, help="Python with torch and transformers")
    parser.add_argument("--batch-size", type=int, default=8)
    parser.add_argument("--length", type=int, default=24, help="tokens of a caption (default: 24)")
    parser.add_argument("--captions", type=int, default=1, help="captions per image (default: 1)")
    parser.add_argument("--rounds", type=int, default=5, help="timed steps of each (default: 5)")
    parser.add_argument(
        "--choices",
        nargs="+",
        choices=CHOICES,
        default=["effcap-float32", "effcap-bfloat16", PEER],
        help="what to measure (default: all but transformers-bfloat16)",
    )
    parser.add_argument("--serve", choices=CHOICES, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.serve:
        given = (arguments.batch_size, arguments.length, arguments.captions)
        serve(lambda: create(arguments.serve, given))
        return
    if arguments.python is None:
        parser.error("--python is required")
    sizes = [f"--batch-size={arguments.batch_size}", f"--length={arguments.length}"]
    sizes.append(f"--captions={arguments.captions}")
    processes: dict[str, Worker] = {}
    first: dict[str, float] = {}
    optimizers: dict[str, float] = {}
    for name in arguments.choices:  # one after the other, so that none disturbs a first step
        python = arguments.python if name.startswith("transformers") else sys.executable
        processes[name] = Worker([python, __file__, *sizes, "--serve", name])
        if name.startswith("effcap"):
            ask(processes[name], "optimizer")  # compiles it, once the captioner is made
        first[name] = ask(processes[name])
    rounds = [
        {name: ask(process) for name, process in processes.items()} for _ in range(arguments.rounds)
    ]
    for name, process in processes.items():
        if name.startswith("effcap"):
            seconds = [ask(process, "optimizer") for _ in range(arguments.rounds)]
            optimizers[name] = float(np.median(seconds))
        process.close()
    print(f"{'':22} {'first':>7} {'step':>7} {'optimizer':>9} {'ratio':>7}")
    for name in processes:
        step = np.median([one[name] for one in rounds])
        optimizer = f"{optimizers[name]:9.2f}" if name in optimizers else " " * 9
        line = f"{name:22} {first[name]:7.1f} {step:7.2f} {optimizer}"
        if PEER in processes:
            line += f" {np.median([one[PEER] / one[name] for one in rounds]):7.2f}"
        print(line)
    print(json.dumps({"first": first, "rounds": rounds, "optimizer": optimizers}))


if __name__ == "__main__":
    main()
