"""Compares a training step with that of transformers on torch, and times the first step.

    python benchmarks/speed/training_step.py --python ../torch/bin/python

EffCap trains EfficientNetV2-S and GPT-2 124M, transformers ViT-B/16 and GPT-2 124M, both with
cross-attention in every layer, random weights and all of them trained, on `--batch-size` random
images of 224 px with `--length` tokens each, by AdamW with clipped gradients. Both stay in
processes of their own and take turns. "first" is the first step, which EffCap compiles, and
"optimizer" a step of EffCap's optimizer alone.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

SIDE, VOCABULARY = 224, 50257
Step = Callable[[], Any]


def random_batch(size: int, length: int) -> tuple[np.ndarray, np.ndarray]:
    """Returns images (B, h, w, 3) and tokens (B, T)."""
    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, (size, SIDE, SIDE, 3)).astype(np.float32)  # (B,h,w,3)
    return images, rng.integers(0, VOCABULARY - 1, (size, length)).astype(np.int32)


def effcap_steps(size: int, length: int) -> dict[str, Step]:
    """Returns a training step of EffCap, and one of its optimizer alone."""
    import checkout  # noqa: F401

    from effcap.tools.cli.terminal import start_keras

    start_keras()
    import tensorflow as tf

    from effcap import Captioner
    from effcap.trainers import TrainingOptions
    from effcap.trainers.engine.optimizer import make_optimizer

    backbone = {"network": "efficientnet_v2_s", "trainable_blocks": "all"}
    captioner = Captioner.from_hparams("gpt2-124m", encoder={"backbone": backbone})
    optimizer = make_optimizer(TrainingOptions(learning_rate=1e-4), 1000, captioner)
    captioner.compile(optimizer, jit_compile=False)
    optimizer.build(captioner.trainable_variables)
    images, tokens = random_batch(size, length)
    inputs = {"images": images, "tokens": tokens, "segments": np.ones_like(tokens)}
    weights = np.ones(tokens.shape, np.float32)  # (B,T)
    targets = np.roll(tokens, -1, axis=1)  # (B,T)

    @tf.function
    def optimize() -> None:
        optimizer.apply([1e-3 * tf.ones(x.shape) for x in captioner.trainable_variables])

    return {
        "step": lambda: captioner.train_on_batch(inputs, targets, weights),
        "optimizer": optimize,
    }


def transformers_steps(size: int, length: int) -> dict[str, Step]:
    """Returns a training step of transformers."""
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
    images, tokens = random_batch(size, length)
    pixels = torch.from_numpy(images.transpose(0, 3, 1, 2).copy()) / 127.5 - 1  # (B,3,h,w)
    labels = torch.from_numpy(tokens).long()  # (B,T)

    def step() -> None:
        optimizer.zero_grad()
        model(pixel_values=pixels, labels=labels).loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()

    return {"step": step}


STEPS = {"effcap": effcap_steps, "transformers": transformers_steps}


def serve(name: str, size: int, length: int) -> None:
    """Answers each line of the input, the name of a step, with its seconds."""
    steps = STEPS[name](size, length)
    for line in sys.stdin:
        started = time.perf_counter()
        steps[line.strip()]()
        print(f"seconds {time.perf_counter() - started}", flush=True)


def ask(process: subprocess.Popen, step: str = "step") -> float:
    """Returns the seconds that a process needs for a step."""
    assert process.stdin is not None and process.stdout is not None
    print(step, file=process.stdin, flush=True)
    for line in process.stdout:
        if line.startswith("seconds "):
            return float(line.split()[1])
    raise RuntimeError("a process ended early; see its messages above")


def main() -> None:
    """Prints the seconds of both and their ratio."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--python", type=Path, help="Python with torch and transformers")
    parser.add_argument("--batch-size", type=int, default=8)
    parser.add_argument("--length", type=int, default=24, help="tokens of a caption (default: 24)")
    parser.add_argument("--rounds", type=int, default=5, help="timed steps of each (default: 5)")
    parser.add_argument("--serve", choices=STEPS, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.serve:
        serve(arguments.serve, arguments.batch_size, arguments.length)
        return
    if arguments.python is None:
        parser.error("--python is required")
    sizes = ["--batch-size", str(arguments.batch_size), "--length", str(arguments.length)]
    processes = [
        subprocess.Popen(
            [python, __file__, *sizes, "--serve", name],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        for name, python in (("effcap", sys.executable), ("transformers", arguments.python))
    ]
    effcap, _ = processes
    ask(effcap, "optimizer")  # compiles, and waits until the captioner is made
    first, first_of_other = (ask(process) for process in processes)
    rounds = [[ask(process) for process in processes] for _ in range(arguments.rounds)]
    optimizer = np.median([ask(effcap, "optimizer") for _ in range(arguments.rounds)])
    mine, theirs = np.median(np.array(rounds), axis=0)
    ratio = np.median([other / one for one, other in rounds])
    print(f"first step: EffCap {first:.1f} s, transformers {first_of_other:.1f} s")
    print(f"step: EffCap {mine:.2f} s, transformers {theirs:.2f} s, ratio {ratio:.2f}")
    print(f"optimizer alone: {optimizer:.2f} s, {optimizer / mine:.0%} of EffCap's step")
    print(json.dumps({"first": first, "rounds": rounds, "optimizer": optimizer}))
    for process in processes:
        process.kill()


if __name__ == "__main__":
    main()
