"""Measures time and memory of loading a GPT-2 from each format that it is published in.

    python benchmarks/speed/load_gpt2.py --model gpt2-1558m

Writes random weights in one format after the other to a temporary folder (up to 6.2 GB), and loads
each in a new process. "runtime" is the memory of Python, Keras and TensorFlow before there is a
model; it is part of the peak.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import checkout  # noqa: F401
import numpy as np
from memory import peak_memory

from effcap.config import load_hparams
from effcap.tools.cli.terminal import start_keras
from helpers.gpt2_writers import shapes_of, write_folder

FORMATS = ("safetensors", "torch", "hdf5", "checkpoint")


def write(form: str, folder: Path, variant: str) -> None:
    """Writes random weights of a variant's size."""
    if form == "checkpoint":
        start_keras()
    decoder = load_hparams(variant)["decoder"]
    config = {
        "vocab_size": decoder["vocabulary_size"],
        "n_positions": decoder["max_sequence_length"],
        "n_embd": decoder["hidden_dim"],
        "n_head": decoder["num_heads"],
        "n_layer": decoder["num_layers"],
    }
    shapes, rng = shapes_of(config), np.random.default_rng(0)

    def values(name: str) -> np.ndarray:
        return rng.standard_normal(shapes[name], np.float32)

    write_folder(form, folder, config, shapes, values)


def load(folder: Path, variant: str) -> None:
    """Loads the weights and prints the measurements as JSON."""
    start_keras()
    from effcap import Captioner
    from effcap.tools import load_gpt2

    runtime = peak_memory()
    captioner = Captioner.from_hparams(variant)
    model, started = 4 * captioner.count_params(), time.perf_counter()
    load_gpt2(captioner, folder)
    seconds = time.perf_counter() - started
    sizes = {"model": model, "runtime": runtime, "peak": peak_memory()}
    print(json.dumps({"seconds": seconds, **sizes}))


def main() -> None:
    """Prints one row per format."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("--model", default="gpt2-124m", help="variant (default: gpt2-124m)")
    parser.add_argument(
        "--formats", nargs="+", choices=FORMATS, default=FORMATS, help="formats (default: all)"
    )
    parser.add_argument("--job", nargs=2, metavar=("JOB", "DIR"), help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.job is not None:
        job, folder = arguments.job
        if job == "load":
            load(Path(folder), arguments.model)
        else:
            write(job, Path(folder), arguments.model)
        return
    print(f"{arguments.model}: memory in GB; ratio of the peak to the captioner's size")
    print(f"{'format':12} {'seconds':>8} {'captioner':>10} {'runtime':>8} {'peak':>7} {'ratio':>6}")
    for form in arguments.formats:
        with tempfile.TemporaryDirectory() as folder:
            command = [sys.executable, __file__, "--model", arguments.model, "--job"]
            subprocess.run([*command, form, folder], check=True)
            process = subprocess.run([*command, "load", folder], check=True, stdout=subprocess.PIPE)
        measured = json.loads(process.stdout)
        model, runtime, peak = (measured[name] / 1e9 for name in ("model", "runtime", "peak"))
        print(
            f"{form:12} {measured['seconds']:8.1f} {model:10.2f} {runtime:8.2f} {peak:7.2f} "
            f"{peak / model:6.2f}",
            flush=True,
        )


if __name__ == "__main__":
    main()
