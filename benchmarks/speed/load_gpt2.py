"""Seconds and memory of loading a GPT-2 of random weights from each format it is published in.

    python benchmarks/load_gpt2.py --model gpt2-1558m

Writes one format after the other to a temporary folder (up to 6.2 GB), and loads it into a new
captioner of that variant, in a fresh process each. "runtime" is what Python, Keras and TensorFlow
hold before there is a model; it is part of the peak.
"""

from __future__ import annotations

import argparse
import json
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
from helpers.gpt2_writers import shapes_of, write_folder

from effcap.config import load_hparams
from effcap.tools.cli.terminal import start_keras

FORMS = ("safetensors", "torch", "hdf5", "checkpoint")


def peak() -> int:
    """The most memory this process has held, in bytes."""
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit


def write(form: str, folder: Path, variant: str) -> None:
    if form == "checkpoint":
        start_keras()
    decoder = load_hparams(variant)["decoder"]
    config = {
        "vocab_size": decoder["vocabulary_size"],
        "n_positions": decoder["positions"],
        "n_embd": decoder["width"],
        "n_head": decoder["heads"],
        "n_layer": decoder["layers"],
    }
    shapes, rng = shapes_of(config), np.random.default_rng(0)

    def values(name: str) -> np.ndarray:
        return rng.standard_normal(shapes[name], np.float32)

    write_folder(form, folder, config, shapes, values)


def load(folder: Path, variant: str) -> None:
    """Prints what loading took as JSON."""
    start_keras()
    from effcap import Captioner
    from effcap.tools import load_gpt2

    runtime = peak()
    captioner = Captioner.from_hparams(variant)
    model, started = 4 * captioner.count_params(), time.perf_counter()
    load_gpt2(captioner, folder)
    seconds = time.perf_counter() - started
    print(json.dumps({"seconds": seconds, "model": model, "runtime": runtime, "peak": peak()}))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("--model", default="gpt2-124m", help="variant")
    parser.add_argument("--formats", nargs="+", choices=FORMS, default=FORMS)
    parser.add_argument("--job", nargs=2, metavar=("JOB", "DIR"), help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.job is not None:
        job, folder = arguments.job
        if job == "load":
            load(Path(folder), arguments.model)
        else:
            write(job, Path(folder), arguments.model)
        return
    print(f"{arguments.model}: memory in GB, and the peak over the captioner's own size")
    print(f"{'format':12} {'seconds':>8} {'captioner':>10} {'runtime':>8} {'peak':>7} {'ratio':>6}")
    for form in arguments.formats:
        with tempfile.TemporaryDirectory() as folder:
            command = [sys.executable, __file__, "--model", arguments.model, "--job"]
            subprocess.run([*command, form, folder], check=True)
            ran = subprocess.run([*command, "load", folder], check=True, stdout=subprocess.PIPE)
        took = json.loads(ran.stdout)
        sizes = [took[name] / 1e9 for name in ("model", "runtime", "peak")]
        print(
            f"{form:12} {took['seconds']:8.1f} {sizes[0]:10.2f} {sizes[1]:8.2f} {sizes[2]:7.2f} "
            f"{sizes[2] / sizes[0]:6.2f}",
            flush=True,
        )


if __name__ == "__main__":
    main()
