"""Compares training in bfloat16 with float32: losses on the same batches, and seconds per step.

    python benchmarks/experiments/bfloat16.py --csv train.csv --images photos/

Both captioners have the backbone and vocabulary of `--preset`, and its decoder or that of a variant
such as `--decoder gpt2-124m`, which starts from the same random weights. They take turns on every
batch, so that both see the same machine. Prints a row every `--every` steps: mean losses since the
last row, and mean seconds per step.
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path

import checkout  # noqa: F401
import numpy as np

from effcap.tools.cli.terminal import start_keras

PRECISIONS = ("float32", "bfloat16")


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--csv", type=Path, required=True)
    parser.add_argument("--images", type=Path, required=True)
    parser.add_argument("--preset", default="flickr8k-lite0")
    parser.add_argument("--decoder", help="variant with the decoder (default: the preset's)")
    parser.add_argument("--batch-size", type=int, default=8)
    parser.add_argument("--captions", type=int, help="captions per photo and step (default: all)")
    parser.add_argument("--steps", type=int, default=2000)
    parser.add_argument("--every", type=int, default=20)
    parser.add_argument("--minutes", type=float, help="stop after this time (default: never)")
    arguments = parser.parse_args()
    start_keras()
    import keras

    from effcap import Captioner
    from effcap.config import load_hparams
    from effcap.precision import dtype_policy
    from effcap.trainers import TrainingOptions, read_csv
    from effcap.trainers.engine.optimizer import make_optimizer

    pretrained = Captioner.from_preset(arguments.preset)
    options = TrainingOptions(batch_size=arguments.batch_size, learning_rate=1e-3)
    hparams = pretrained.hparams()
    if arguments.decoder:
        size = {"vocabulary_size": pretrained.decoder.vocabulary_size}
        hparams["decoder"] = {**load_hparams(arguments.decoder)["decoder"], **size}
    captioners = {}
    for precision in PRECISIONS:
        keras.utils.set_random_seed(0)
        with dtype_policy(precision):
            captioner = Captioner.from_hparams(hparams, pretrained.tokenizer)
        captioner.encoder.backbone.set_weights(pretrained.encoder.backbone.get_weights())
        captioner.compile(make_optimizer(options, arguments.steps, captioner), jit_compile=False)
        captioners[precision] = captioner
    dataset = read_csv(arguments.csv, arguments.images)
    batches = dataset.batches(
        captioners["float32"],
        batch_size=arguments.batch_size,
        captions_per_photo=arguments.captions,
    )
    batches.start_epoch(0)
    started = time.monotonic()
    rows = []  # of (losses, seconds)
    print(f"{'steps':>6}  loss {' / '.join(PRECISIONS)}    seconds per step")
    for step in range(arguments.steps):
        epoch, index = divmod(step, len(batches))
        if step and not index:
            batches.start_epoch(epoch)
        inputs, targets, weights = batches[index]
        row = []
        for captioner in captioners.values():
            begun = time.perf_counter()
            captioner.reset_metrics()
            scores = captioner.train_on_batch(inputs, targets, weights, return_dict=True)
            row.append((float(scores["loss"]), time.perf_counter() - begun))
        rows.append(row)
        is_over = arguments.minutes and time.monotonic() - started > 60 * arguments.minutes
        if (step + 1) % arguments.every == 0 or is_over:
            last = np.array(rows[-arguments.every :])  # (steps,precisions,2)
            losses, seconds = last.mean(axis=0).T
            print(
                f"{step + 1:6}  {losses[0]:.4f} / {losses[1]:.4f}    "
                f"{seconds[0]:.3f} / {seconds[1]:.3f}",
                flush=True,
            )
        if is_over:
            break


if __name__ == "__main__":
    main()
