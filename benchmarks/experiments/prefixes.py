"""Compares prefixes with cross-attention by CIDEr, trained parameters, and speed.

    python benchmarks/experiments/prefixes.py --data flickr8k --texts coco-eval --out runs/prefixes
    python benchmarks/experiments/prefixes.py --out runs/prefixes --time

`--data` is a folder with train.csv, dev.csv and images/; `--texts` a folder of JSON files of
captions, on which the decoder is first trained as a language model, in place of GPT-2's weights.
All variants start from this language model, take the same features of a frozen EfficientNet-Lite0,
and train with the same options for the same number of steps. The first command trains the variants
and scores them with 5 beams on all dev photos; it may be stopped at any time, and continues when
started again. The second measures the variants in turn, with the machine otherwise idle. Both print
a table of what is known.

For several `--jobs` on one GPU, set KERAS_BACKEND=jax and XLA_PYTHON_CLIENT_PREALLOCATE=false, and
JAX_COMPILATION_CACHE_DIR to compile the steps of a variant once for all seeds.
"""

from __future__ import annotations

import argparse
import json
import statistics
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from commands import SCORES, effcap, score, set_options
from prefix_times import measure
from rich.console import Console
from rich.table import Table

DECODER: dict[str, Any] = {
    "kind": "gpt2",
    "vocabulary_size": 4096,
    "max_sequence_length": 256,
    "hidden_dim": 256,
    "num_heads": 8,
    "num_layers": 4,
    "dropout": 0.1,
    "attention_dropout": 0.0,
}
BACKBONE = {"network": "efficientnet_lite0", "image_size": [224, 224], "trainable_blocks": 0}
# Features reach the prefix's mapper as they are; `num_layers: 0` projects them for cross-attention.
ENCODERS: dict[str, dict[str, Any]] = {
    "prefix": {"kind": "backbone", "backbone": BACKBONE},
    "cross": {"kind": "image", "backbone": BACKBONE, "num_layers": 0, "dropout": 0.1},
}
TRAINING = {"learning_rate": 1e-3, "batch_size": 32, "ema_momentum": 0.99}
LANGUAGE_MODEL_EPOCHS = 2

CROSS: dict[str, Any] = {"kind": "cross"}
MLP: dict[str, Any] = {"kind": "prefix", "dropout": 0.1, "mapper": {"kind": "mlp"}}
MASKED_MLP = {**MLP, "sparse_mask": {"threshold": 0.1}}
# About as many parameters as the MLP.
TRANSFORMER: dict[str, Any] = {
    **MLP,
    "mapper": {"kind": "transformer", "prefix_length": 10, "num_layers": 2, "num_heads": 8},
}


def make_variant(fusion: dict[str, Any], frozen: bool = False, npair: float = 0.0) -> dict:
    """Returns the hyperparameters of a variant.

    Args:
        fusion: `decoder.fusion`.
        frozen: whether the language model is not trained.
        npair: weight of the n-pair loss.
    """
    return {
        "description": "a variant of benchmarks/experiments/prefixes.py",
        "encoder": ENCODERS[fusion["kind"]],
        "decoder": {**DECODER, "frozen": "pretrained" if frozen else None, "fusion": fusion},
        "training": {**TRAINING, "npair_weight": npair},
    }


VARIANTS = {
    "cross-attention": make_variant(CROSS),
    "MLP": make_variant(MLP),
    "MLP, frozen": make_variant(MLP, frozen=True),
    "MLP, mask": make_variant(MASKED_MLP),
    "MLP, n-pair": make_variant(MLP, npair=0.1),
    "MLP, mask, n-pair": make_variant(MASKED_MLP, npair=0.1),
    "transformer": make_variant(TRANSFORMER),
    "transformer, frozen": make_variant(TRANSFORMER, frozen=True),
}


def main() -> None:
    """Trains and scores, or measures, and prints the table."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("--data", type=Path, help="train.csv, dev.csv, images/")
    parser.add_argument("--texts", type=Path, help="folder of captions_*.json")
    parser.add_argument("--out", type=Path, required=True, help="folder of the runs")
    parser.add_argument(
        "--only", nargs="+", default=list(VARIANTS), help="names of variants (default: all)"
    )
    parser.add_argument("--seeds", type=int, default=2, help="runs of each variant (default: 2)")
    parser.add_argument(
        "--passes", type=int, default=6, help="passes over the training photos (default: 6)"
    )
    parser.add_argument("--jobs", type=int, default=1, help="runs at a time (default: 1)")
    parser.add_argument("--time", action="store_true", help="measure the variants instead")
    parser.add_argument("--rounds", type=int, default=5, help="rounds of --time (default: 5)")
    arguments = parser.parse_args()
    if not arguments.time and not (arguments.data and arguments.texts):
        parser.error("--data and --texts are required, except with --time")

    out, names = arguments.out, arguments.only
    out.mkdir(parents=True, exist_ok=True)
    if arguments.time:
        times = measure({name: VARIANTS[name] for name in names}, out / "lm", arguments.rounds)
        (out / "times.json").write_text(json.dumps(times, indent=2), encoding="utf-8")
    else:
        for name in names:
            text = json.dumps(VARIANTS[name], indent=2)
            model_file(out, name).write_text(text, encoding="utf-8")
        make_language_model(arguments.texts, out / "lm")
        make_feature_cache(arguments.data, out, names[0])
        with ThreadPoolExecutor(arguments.jobs) as pool:
            runs = [
                pool.submit(train_and_score, name, seed, arguments.passes, arguments.data, out)
                for seed in range(arguments.seeds)
                for name in names
            ]
        for run in runs:
            run.result()
    print_table(names, out)


def slug(name: str) -> str:
    """Returns the file name of a variant."""
    return name.replace(", ", "-").replace(" ", "-")


def model_file(out: Path, name: str) -> Path:
    """Returns the file of a variant's hyperparameters."""
    return out / f"{slug(name)}.json"


def make_language_model(texts: Path, folder: Path) -> None:
    """Trains the decoder on captions alone and writes it in the format of Hugging Face's GPT-2."""
    if (folder / "config.json").is_file():
        return
    from language_model import train_language_model

    captions = []
    for path in sorted(texts.glob("captions_*.json")):
        content = json.loads(path.read_text(encoding="utf-8"))
        captions += [record["caption"] for record in content["annotations"]]
    train_language_model(captions, DECODER, folder, LANGUAGE_MODEL_EPOCHS, continuous=True)


def make_feature_cache(data: Path, out: Path, name: str) -> None:
    """Computes the features of the training photos, which all runs read, by a run of one step."""
    folder = out / "first-step"
    effcap("train", *train_words(name, data, out), "--steps", 1, "--out", folder, "--resume")


def train_words(name: str, data: Path, out: Path) -> tuple[object, ...]:
    """Returns the words of `effcap train` that all runs of a variant share."""
    return (
        *("csv", "--csv", data / "train.csv", "--images", data / "images", "--tidy"),
        *("--model", model_file(out, name), "--weights", out / "lm"),
        *("--feature-cache", out / "features"),
    )


def train_and_score(name: str, seed: int, passes: int, data: Path, out: Path) -> None:
    """Trains a variant, and scores its captions of all dev photos."""
    train = (
        *train_words(name, data, out),
        *set_options(
            (
                f"training.seed={seed}",
                "training.epochs=1",
                f"training.passes_per_epoch={passes}",
            )
        ),
    )
    evaluate = (
        *("--csv", data / "dev.csv", "--images", data / "images"),
        *("--batch-size", 50, "--max-new-tokens", 30),
    )
    score(out / f"{slug(name)}-{seed}", train, evaluate)


def print_table(names: list[str], out: Path) -> None:
    """Prints a row of scores, parameters and times for each variant."""
    file = out / "times.json"
    times = json.loads(file.read_text(encoding="utf-8")) if file.is_file() else {}
    table = Table("", "CIDEr", "runs", "trained", "step", "decoding")
    for name in names:
        ciders = read_ciders(name, out)
        mean = f"{statistics.mean(ciders):.3f}" if ciders else ""
        deviation = f" ± {statistics.stdev(ciders):.3f}" if len(ciders) > 1 else ""
        row = [name, mean + deviation, str(len(ciders))]
        if name in times:
            row.append(f"{times[name]['parameters'] / 1e6:.2f} M")
            row.append(f"{1000 * times[name]['step']:.0f} ms")
            row.append(f"{1000 * times[name]['decoding']:.2g} ms/photo")
        table.add_row(*row)
    Console().print(table)


def read_ciders(name: str, out: Path) -> list[float]:
    """Returns the CIDEr of a variant's scored runs."""
    return [
        json.loads(path.read_text(encoding="utf-8"))["scores"]["CIDEr"]
        for path in sorted(out.glob(f"{slug(name)}-[0-9]/{SCORES}"))
    ]


if __name__ == "__main__":
    main()
