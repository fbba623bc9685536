"""Measures time and memory of loading X-VLM's Swin-B from a .th file, and of its features.

    python benchmarks/speed/load_swin.py

Writes random weights of X-VLM's real shapes with 7x7 windows, text encoder included (0.9 GB), to a
temporary folder. They are loaded in a new process at 224 pixels, and at 384, where the relative
position biases are interpolated. "runtime" is the memory of Python, Keras and TensorFlow before
there is a network, and part of "peak", the peak memory until the weights are loaded; "ratio" is the
peak without the runtime over the network's size.
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
from helpers.gpt2_writers import write_torch

SIDES = (224, 384)
BATCH_SIZE = 4


def text_shapes(width: int = 768, num_layers: int = 12) -> dict[str, tuple[int, ...]]:
    """Returns the shapes of a BERT whose last six layers have cross-attention."""
    shapes: dict[str, tuple[int, ...]] = {
        "embeddings.word_embeddings.weight": (30522, width),
        "embeddings.position_embeddings.weight": (512, width),
    }
    for i in range(num_layers):
        layer = f"encoder.layer.{i}"
        kernels = {f"{layer}.attention.self.{n}": width for n in ("query", "key", "value")}
        kernels[f"{layer}.attention.output.dense"] = width
        if i >= num_layers // 2:
            kernels[f"{layer}.crossattention.self.query"] = width
            kernels |= {f"{layer}.crossattention.self.{n}": 1024 for n in ("key", "value")}
            kernels[f"{layer}.crossattention.output.dense"] = width
        shapes |= {f"{name}.weight": (width, inputs) for name, inputs in kernels.items()}
        shapes[f"{layer}.intermediate.dense.weight"] = (4 * width, width)
        shapes[f"{layer}.output.dense.weight"] = (width, 4 * width)
    return shapes


def write(folder: Path) -> None:
    """Writes random weights in X-VLM's layout."""
    start_keras()
    from effcap.backbones.registry import BACKBONES
    from effcap.weights.name_pairs import find_variable
    from effcap.weights.swin_weights import swin_name_pairs

    network = BACKBONES["xvlm_swin_base"].build((224, 224, 3))
    shapes = {f"model.text_encoder.bert.{name}": shape for name, shape in text_shapes().items()}
    for pair in swin_name_pairs(network):
        layer, _, path = pair.ours.partition(".")
        shape = pair.shape(find_variable(network.get_layer(layer), path))
        shapes[f"model.vision_encoder.{pair.theirs[0]}"] = shape
    rng = np.random.default_rng(0)
    write_torch(folder, shapes, lambda name: 0.02 * rng.standard_normal(shapes[name], np.float32))


def load(folder: Path, side: int) -> None:
    """Loads the weights, computes features, and prints the measurements as JSON."""
    start_keras()
    import keras

    from effcap.backbones.backbone import Backbone
    from effcap.conversion.backbone_weights import load_backbone_weights
    from effcap.trainers.data.feature_cache import FeatureExtractor

    keras.ops.convert_to_numpy(keras.ops.ones(1) + 1)
    runtime, started = peak_memory(), time.perf_counter()
    backbone = Backbone("xvlm_swin_base", (side, side))
    built = time.perf_counter()
    load_backbone_weights(backbone, str(folder / "pytorch_model.bin"))
    loaded, peak = time.perf_counter(), peak_memory()
    extractor = FeatureExtractor(backbone)
    images = np.zeros((BATCH_SIZE, side, side, 3), np.uint8)
    extractor.predict_on_batch(images)
    before = time.perf_counter()
    extractor.predict_on_batch(images)
    measured = {
        "build": built - started,
        "load": loaded - built,
        "network": 4 * backbone.net.count_params(),
        "runtime": runtime,
        "peak": peak,
        "photo": (time.perf_counter() - before) / BATCH_SIZE,
    }
    print(json.dumps(measured))


def main() -> None:
    """Prints one row per image size."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("--job", nargs=2, metavar=("JOB", "DIR"), help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.job is not None:
        job, folder = arguments.job
        write(Path(folder)) if job == "write" else load(Path(folder), int(job))
        return
    print("seconds to build, to load, and per photo in batches of 4; memory in GB")
    print(f"{'pixels':>6} {'build':>6} {'load':>6} {'photo':>6} ", end="")
    print(f"{'network':>8} {'runtime':>8} {'peak':>6} {'ratio':>6}")
    with tempfile.TemporaryDirectory() as folder:
        command = [sys.executable, __file__, "--job"]
        subprocess.run([*command, "write", folder], check=True)
        for side in SIDES:
            process = subprocess.run(
                [*command, str(side), folder], check=True, stdout=subprocess.PIPE
            )
            row = json.loads(process.stdout)
            network, runtime, peak = (row[name] / 1e9 for name in ("network", "runtime", "peak"))
            print(
                f"{side:6} {row['build']:6.1f} {row['load']:6.1f} {row['photo']:6.2f} "
                f"{network:8.2f} {runtime:8.2f} {peak:6.2f} {(peak - runtime) / network:6.2f}",
                flush=True,
            )


if __name__ == "__main__":
    main()
