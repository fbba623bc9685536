"""Kills a training run at random moments; it must end with the weights of a run never killed.

    python tests/robustness/kill.py --kills 20
    python tests/robustness/kill.py --kills 20 --data shards

One run is left alone. Another one with the same options is killed with SIGKILL shortly after it
wrote a checkpoint, and resumed, again and again. Both must end with the same weights, to the bit,
and the same scores. The runs use everything with a state of its own: dropout, augmentation, choice
of captions, a trained backbone with batch normalization, averaged weights, accumulated gradients.
Exits with 1 after any difference.
"""

from __future__ import annotations

import argparse
import json
import random
import subprocess
import tempfile
import time
from itertools import zip_longest
from pathlib import Path

import checkout  # noqa: F401
import h5py
import numpy as np

STEPS_PER_KILL = 30
MAX_DELAY = 1.0  # seconds between a checkpoint and a kill
SETTINGS = (
    "run.checkpoint_steps=3",
    "training.batch_size=2",
    "training.captions_per_photo=1",
    "training.gradient_accumulation_steps=2",
    "training.learning_rate=0.003",
    "training.ema_momentum=0.9",
    "training.horizontal_flip=true",
    "training.random_crop=0.6",
    "training.color_jitter=0.2",
    "encoder.backbone.trainable_blocks=all",
    "encoder.dropout=0.1",
    "decoder.dropout=0.1",
    "decoder.vocabulary_size=300",
)


def main() -> int:
    """Runs both, prints the kills and the differences, and returns the exit code."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--kills", type=int, default=20, help="number of kills (default: 20)")
    parser.add_argument("--seed", type=int, default=0, help="seed of the moments (default: 0)")
    parser.add_argument(
        "--data", choices=("csv", "shards"), default="csv", help="kind of data (default: csv)"
    )
    arguments = parser.parse_args()
    rng = random.Random(arguments.seed)
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        steps = STEPS_PER_KILL * (arguments.kills + 1)
        command = make_command(root, steps, arguments.data)
        whole, killed = root / "whole", root / "killed"
        run([*command, "--out", str(whole)])
        for number in range(1, arguments.kills + 1):
            step = kill([*command, "--out", str(killed)], killed, rng.uniform(0, MAX_DELAY))
            print(f"kill {number}: the last checkpoint is of step {step}", flush=True)
        run([*command, "--out", str(killed)])
        differences = compare(whole, killed)
    print("\n".join(differences) or f"{arguments.kills} kills: equal weights and scores")
    return 1 if differences else 0


def make_command(root: Path, steps: int, data: str) -> list[str]:
    """Writes data and a tiny variant; returns the words of a training command except --out."""
    from helpers.captioners import tiny_hparams
    from helpers.cli_process import effcap
    from helpers.data_maker import make_data

    make_data(root, count=45)
    (root / "tiny.json").write_text(json.dumps(tiny_hparams(max_sequence_length=48)))
    photos = ("--images", root / "photos")
    if data == "shards":
        for name in ("train", "dev"):
            csv = ("--csv", root / f"{name}.csv", *photos)
            run(effcap("shards", *csv, "--out", root / name, "--max-count", 12))
            run(effcap("index", root / name))
        options = ("--shards", root / "train", "--val-shards", root / "dev", "--shuffle-block", 8)
    else:
        options = ("--csv", root / "train.csv", "--val-csv", root / "dev.csv", *photos)
    return effcap(
        *("train", "dali" if data == "shards" else "csv", *options),
        *("--model", root / "tiny.json", "--backbone-weights", "none"),
        "--resume",
        *(
            word
            for setting in (f"training.steps={steps}", *SETTINGS)
            for word in ("--set", setting)
        ),
    )


def run(command: list[str]) -> None:
    """Runs a command to its end; exits if it fails."""
    from helpers.cli_process import environment

    process = subprocess.run(command, capture_output=True, text=True, env=environment())
    if process.returncode:
        raise SystemExit(f"{' '.join(command[3:5])} failed:\n{process.stderr}")


def kill(command: list[str], out: Path, delay: float) -> int:
    """Starts or resumes a run, and kills it `delay` seconds after it wrote a checkpoint.

    Returns:
        The step of the last checkpoint.
    """
    from helpers.cli_process import environment

    checkpoint = out / "checkpoint.h5"
    before = checkpoint.stat().st_mtime_ns if checkpoint.exists() else None
    with tempfile.TemporaryFile("w+") as errors:
        process = subprocess.Popen(command, stderr=errors, env=environment())
        while not checkpoint.exists() or checkpoint.stat().st_mtime_ns == before:
            if process.poll() is not None:
                errors.seek(0)
                raise SystemExit(f"the run ended before it was killed:\n{errors.read()}")
            time.sleep(0.01)
        time.sleep(delay)
        if process.poll() is not None:
            raise SystemExit("the run ended before it was killed: increase STEPS_PER_KILL")
        process.kill()
        process.wait()
    with h5py.File(checkpoint) as file:
        return json.loads(file.attrs["state"])["step"]


def compare(one: Path, other: Path) -> list[str]:
    """Returns the differences between the presets and logs of two run folders."""
    differences = []
    for preset in ("last", "best"):
        first, second = (read_weights(run / preset / "model.weights.h5") for run in (one, other))
        if first.keys() != second.keys():
            differences.append(f"{preset}: other weights")
        differences += [
            f"{preset}: {name} differs"
            for name in first.keys() & second.keys()
            if not np.array_equal(first[name], second[name], equal_nan=True)
        ]
    tables = ((run / "log.csv").read_text().splitlines() for run in (one, other))
    differences += [
        f"log.csv: {first} and {second}"
        for first, second in zip_longest(*tables)
        if first != second
    ]
    return differences


def read_weights(path: Path) -> dict[str, np.ndarray]:
    """Returns all arrays of a weights file by name."""
    arrays = {}

    def add(name: str, item: h5py.Group | h5py.Dataset) -> None:
        if isinstance(item, h5py.Dataset):
            arrays[name] = item[()]

    with h5py.File(path) as file:
        file.visititems(add)
    return arrays


if __name__ == "__main__":
    raise SystemExit(main())
