"""Kills a training run again and again, at random moments; it must end as if nothing had happened.

    python benchmarks/kill.py --kills 20
    python benchmarks/kill.py --kills 20 --data dali

One run is left alone. Another, with the same options, is killed with SIGKILL so many times, each
time some moments after it wrote a checkpoint, and resumed. Both must end with the same weights, to
the bit, and the same scores. The run has all that has a state of its own: dropout, augmentation, a
choice of captions, a trained backbone with batch normalization, averaged weights, accumulated
gradients. Exits with 1 where anything differs.
"""

from __future__ import annotations

import argparse
import csv
import json
import random
import subprocess
import sys
import tempfile
import time
from itertools import zip_longest
from pathlib import Path

import h5py
import numpy as np

STEPS_PER_KILL = 40
OPTIONS = {
    "--batch-size": 2,
    "--captions-per-photo": 1,
    "--gradient-accumulation": 2,
    "--crop": 0.6,
    "--colour": 0.2,
    "--learning-rate": 0.003,
    "--checkpoint-steps": 3,
    "--vocab-size": 300,
    "--backbone-weights": "none",
}
SETTINGS = ("training.mirror=true", "training.ema=0.9", "encoder.backbone.trainable_blocks=2")


def main() -> int:
    """Runs both, prints what happened, and compares."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--kills", type=int, default=20)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--data", choices=("csv", "dali"), default="csv", help="dali: shards")
    arguments = parser.parse_args()
    moments = random.Random(arguments.seed)
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        steps = STEPS_PER_KILL * (arguments.kills + 1)
        command = prepare(root, steps, arguments.data == "dali")
        whole, killed = root / "whole", root / "killed"
        finish(command, whole)
        for number in range(1, arguments.kills + 1):
            step = kill(command, killed, moments.uniform(0, 1.5))
            print(f"kill {number}: the last checkpoint was of step {step}", flush=True)
        finish(command, killed)
        differences = compare(whole, killed)
    print("\n".join(differences) or f"{arguments.kills} kills: equal weights and scores")
    return 1 if differences else 0


def prepare(root: Path, steps: int, as_shards: bool = False) -> list[str]:
    """Photos, captions and a tiny variant; the command that trains on them, but for --out."""
    from effcap.config import load_hparams
    from effcap.trainers.engine.smoke import make_photos, shrink

    photos = make_photos(root / "photos", count=50)
    with (root / "captions.csv").open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["image", "caption"])
        writer.writerows([photo.path.name, text] for photo in photos for text in photo.captions)
    (root / "tiny.json").write_text(json.dumps(shrink(load_hparams("lite0-small"))))
    files = {
        "--csv": root / "captions.csv",
        "--val-csv": root / "captions.csv",
        "--images": root / "photos",
    }
    effcap = [sys.executable, "-m", "effcap"]
    if as_shards:
        shards, packed = root / "shards", ("--csv", files["--csv"], "--images", files["--images"])
        run([*effcap, "shards", *map(str, packed), "--out", str(shards), "--max-count", "12"])
        run([*effcap, "index", str(shards)])
        files = {"--shards": shards, "--val-shards": shards, "--shuffle-block": 8}
    options = files | {"--model": root / "tiny.json", "--steps": steps} | OPTIONS
    given = [str(word) for pair in options.items() for word in pair]
    command = [*effcap, "train", "dali" if as_shards else "csv", *given]
    return [*command, "--set", *SETTINGS, "--resume"]


def run(command: list[str]) -> None:
    """Runs a command to its end."""
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
        raise SystemExit(f"{' '.join(command[2:4])} failed:\n{done.stderr}")


def finish(command: list[str], out: Path) -> None:
    """Lets the run come to its end."""
    run([*command, "--out", str(out)])


def kill(command: list[str], out: Path, moment: float) -> int:
    """Starts or resumes the run and kills it `moment` seconds after it wrote a checkpoint.

    Returns:
        The step that the run will go on from.
    """
    checkpoint = out / "checkpoint.h5"
    before = checkpoint.stat().st_mtime_ns if checkpoint.exists() else None
    with tempfile.TemporaryFile("w+") as errors:
        process = subprocess.Popen([*command, "--out", str(out)], stderr=errors)
        while not checkpoint.exists() or checkpoint.stat().st_mtime_ns == before:
            if process.poll() is not None:
                errors.seek(0)
                raise SystemExit(f"the run ended before it could be killed:\n{errors.read()}")
            time.sleep(0.01)
        time.sleep(moment)
        process.kill()
        process.wait()
    with h5py.File(checkpoint) as file:
        return json.loads(file.attrs["position"])["steps"]


def compare(one: Path, other: Path) -> list[str]:
    """What differs between two run folders."""
    differences = []
    for preset in ("last", "best"):
        first, second = (weights(run / preset / "model.weights.h5") for run in (one, other))
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


def weights(path: Path) -> dict[str, np.ndarray]:
    """All arrays of a file of weights."""
    found = {}

    def keep(name: str, item: h5py.Group | h5py.Dataset) -> None:
        if isinstance(item, h5py.Dataset):
            found[name] = item[()]

    with h5py.File(path) as file:
        file.visititems(keep)
    return found


if __name__ == "__main__":
    raise SystemExit(main())
