"""Measures time and memory of loading CLIP's image tower from each format.

    python benchmarks/speed/load_clip.py --network clip_vit_b32

Writes random weights with a text tower of the published size in one format after the other to a
temporary folder, in float16 as OpenAI did (TorchScript) or in float32, and loads each in a new
process. "runtime" is the memory of Python, Keras and TensorFlow before there is a model; it is
part of the peak. "output" is the time of the first image after loading.
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
from helpers.clip_files import write_weights

FORMATS = {"script": "float16", "state_dict": "float32", "open_clip": "float32"}
NETWORKS = {"clip_vit_b32": 512, "clip_vit_b16": 512, "clip_rn50x4": 640}  # width of the text tower


def text_shapes(width: int, vocabulary_size: int = 49408) -> dict[str, tuple[int, ...]]:
    """Returns the shapes of the text tower's tensors."""
    block = {
        "ln_1.weight": (width,),
        "ln_1.bias": (width,),
        "attn.in_proj_weight": (3 * width, width),
        "attn.in_proj_bias": (3 * width,),
        "attn.out_proj.weight": (width, width),
        "attn.out_proj.bias": (width,),
        "ln_2.weight": (width,),
        "ln_2.bias": (width,),
        "mlp.c_fc.weight": (4 * width, width),
        "mlp.c_fc.bias": (4 * width,),
        "mlp.c_proj.weight": (width, 4 * width),
        "mlp.c_proj.bias": (width,),
    }
    return {
        "positional_embedding": (77, width),
        "text_projection": (width, width),
        "logit_scale": (),
        "token_embedding.weight": (vocabulary_size, width),
        "ln_final.weight": (width,),
        "ln_final.bias": (width,),
    } | {
        f"transformer.resblocks.{i}.{name}": shape
        for i in range(12)
        for name, shape in block.items()
    }


def write(form: str, folder: Path, network: str) -> None:
    """Writes random weights of a network's size; the shapes are those that it asks for."""
    start_keras()
    from effcap import Backbone
    from effcap.weights.clip_names import NAMES
    from effcap.weights.tower_names import find_layer_variable

    net = Backbone(network, output="embedding").net
    is_vit = any(layer.name == "ln_pre" for layer in net.layers)
    pairs = NAMES[0 if is_vit else 1].pairs(net)
    shapes = {x: pair.shape(find_layer_variable(net, pair)) for pair in pairs for x in pair.theirs}
    rng, weights = np.random.default_rng(0), {}
    for name, shape in (shapes | text_shapes(NETWORKS[network])).items():
        values = 0.02 * np.abs(rng.standard_normal(shape, np.float32))  # variances too
        weights[name] = np.asarray(values, FORMATS[form])
    path = write_weights(form, folder, weights)
    if path.is_dir():  # its settings are those of the tests' tiny network
        (path / "open_clip_config.json").unlink()


def load(folder: Path, network: str) -> None:
    """Loads the weights and prints the measurements as JSON."""
    start_keras()
    from effcap import Backbone
    from effcap.conversion.backbone_weights import load_backbone_weights

    runtime = peak_memory()
    backbone = Backbone(network, output="embedding")
    model = 4 * backbone.net.count_params()
    script = folder / "clip.pt"
    started = time.perf_counter()
    load_backbone_weights(backbone, str(script if script.is_file() else folder))
    loaded, peak = time.perf_counter(), peak_memory()
    backbone(np.zeros((1, *backbone.image_size, 3), np.uint8))
    seconds = {"seconds": loaded - started, "output": time.perf_counter() - loaded}
    print(json.dumps({**seconds, "model": model, "runtime": runtime, "peak": peak}))


def main() -> None:
    """Prints one row per format."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument(
        "--network", choices=NETWORKS, default="clip_vit_b32", help="(default: clip_vit_b32)"
    )
    parser.add_argument("--job", nargs=2, metavar=("JOB", "DIR"), help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.job is not None:
        job, folder = arguments.job
        if job == "load":
            load(Path(folder), arguments.network)
        else:
            write(job, Path(folder), arguments.network)
        return
    print(f"{arguments.network}: memory in GB")
    print(
        f"{'format':10} {'file':>6} {'seconds':>8} {'output':>7} {'tower':>6} {'runtime':>8} "
        f"{'peak':>6}"
    )
    for form in FORMATS:
        with tempfile.TemporaryDirectory() as folder:
            command = [sys.executable, __file__, "--network", arguments.network, "--job"]
            subprocess.run([*command, form, folder], check=True)
            size = sum(path.stat().st_size for path in Path(folder).iterdir()) / 1e9
            process = subprocess.run([*command, "load", folder], check=True, stdout=subprocess.PIPE)
        measured = json.loads(process.stdout)
        tower, runtime, peak = (measured[name] / 1e9 for name in ("model", "runtime", "peak"))
        print(
            f"{form:10} {size:6.2f} {measured['seconds']:8.1f} {measured['output']:7.2f} "
            f"{tower:6.2f} {runtime:8.2f} {peak:6.2f}",
            flush=True,
        )


if __name__ == "__main__":
    main()
