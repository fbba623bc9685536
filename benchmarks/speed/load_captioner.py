"""Measures time and memory of loading whole captioners of transformers.

    python benchmarks/speed/load_captioner.py --models vit-gpt2 blip-base blip-large

Writes random weights of the published sizes to a temporary folder, in float32 as published, and
loads each in a new process, as `effcap convert` does. "runtime" is the memory of Python, Keras and
TensorFlow before there is a model; it is part of the peak. "output" is the time of the first logits
after loading.
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

from effcap.tools.cli.terminal import start_keras
from helpers.captioner_folders import published_config, published_tensor_shapes
from helpers.transformers_files import write_torch

MODELS = ("vit-gpt2", "blip-base", "blip-large")
FORMATS = ("safetensors", "bin")


def write(form: str, folder: Path, model: str) -> None:
    """Writes random weights of a model's size, with its settings and without a tokenizer."""
    from safetensors.numpy import save_file

    rng = np.random.default_rng(0)
    tensors = {
        name: 0.02 * rng.standard_normal(shape, np.float32)
        for name, shape in published_tensor_shapes(model).items()
    }
    (folder / "config.json").write_text(json.dumps(published_config(model)))
    if form == "bin":
        write_torch(folder / "pytorch_model.bin", tensors)
    else:
        save_file(tensors, folder / "model.safetensors")


def load(folder: Path) -> None:
    """Loads the weights and prints the measurements as JSON."""
    start_keras()
    from effcap.captioner import Captioner  # noqa: F401  part of the runtime
    from effcap.tools import published_captioner

    runtime = peak_memory()
    started = time.perf_counter()
    captioner = published_captioner(folder).captioner
    loaded, peak = time.perf_counter(), peak_memory()
    model = 4 * captioner.count_params()
    images = np.zeros((1, *captioner.encoder.image_size, 3), np.uint8)
    captioner({"images": images, "tokens": np.zeros((1, 12), np.int32)})
    seconds = {"seconds": loaded - started, "output": time.perf_counter() - loaded}
    print(json.dumps({**seconds, "model": model, "runtime": runtime, "peak": peak}))


def main() -> None:
    """Prints one row per model and format."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument(
        "--models", nargs="+", choices=MODELS, default=MODELS, help="(default: all of them)"
    )
    parser.add_argument("--job", nargs=3, metavar=("JOB", "DIR", "MODEL"), help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.job is not None:
        job, folder, model = arguments.job
        if job == "load":
            load(Path(folder))
        else:
            write(job, Path(folder), model)
        return
    print("memory in GB")
    print(
        f"{'model':12} {'format':12} {'file':>6} {'seconds':>8} {'output':>7} {'model':>6} "
        f"{'runtime':>8} {'peak':>6}"
    )
    for model in arguments.models:
        for form in FORMATS:
            with tempfile.TemporaryDirectory() as folder:
                command = [sys.executable, __file__, "--job"]
                subprocess.run([*command, form, folder, model], check=True)
                size = sum(path.stat().st_size for path in Path(folder).iterdir()) / 1e9
                process = subprocess.run(
                    [*command, "load", folder, model], check=True, stdout=subprocess.PIPE
                )
            measured = json.loads(process.stdout)
            weights, runtime, peak = (measured[x] / 1e9 for x in ("model", "runtime", "peak"))
            print(
                f"{model:12} {form:12} {size:6.2f} {measured['seconds']:8.1f} "
                f"{measured['output']:7.2f} {weights:6.2f} {runtime:8.2f} {peak:6.2f}",
                flush=True,
            )


if __name__ == "__main__":
    main()
