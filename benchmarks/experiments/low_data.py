"""Compares gated and plain cross-attention with few photos, with and without a language model.

    python benchmarks/experiments/low_data.py --data flickr8k --texts coco-eval --out runs/low-data

`--data` is a folder with train.csv, dev.csv and images/; `--texts` a folder of JSON files of
captions, on which a decoder is first trained as a language model, in place of GPT-2's weights. All
runs use the same regions, a 7x7 grid of EfficientNet-Lite0, and the same photos for each fraction
and seed. Prints dev scores with 5 beams as a table and, if matplotlib is installed, plots them. The
script may be stopped at any time; started again, it continues.
"""

from __future__ import annotations

import argparse
import json
import statistics
from dataclasses import dataclass
from itertools import product
from pathlib import Path
from typing import Any

from commands import effcap, score, set_options
from rich.console import Console
from rich.table import Table

FRACTIONS = (0.01, 0.05, 0.2, 1.0)
PASSES = {0.01: 15, 0.05: 6, 0.2: 2, 1.0: 1}  # over the photos, by fraction
GATED: dict[str, Any] = {
    "description": "a small VisualGPT for regions of EfficientNet-Lite0",
    "encoder": {
        "kind": "regions",
        "feature_dim": 1280,
        "num_layers": 3,
        "num_heads": 4,
        "intermediate_dim": 512,
        "dropout": 0.2,
    },
    "decoder": {
        "kind": "gpt2",
        "vocabulary_size": 2048,
        "max_sequence_length": 128,
        "hidden_dim": 128,
        "num_heads": 4,
        "num_layers": 3,
        "dropout": 0.2,
        "attention_dropout": 0.0,
        "fusion": {"kind": "meshed", "tau": 0.2},
    },
    "training": {"learning_rate": 1e-3, "batch_size": 4, "ema_momentum": 0.99},
}
PLAIN = {
    **GATED,
    "encoder": {**GATED["encoder"], "num_levels": 1},
    "decoder": {**GATED["decoder"], "fusion": {"kind": "cross"}},
}
VARIANTS = {"gated": GATED, "plain": PLAIN}  # by kind of fusion
Scores = dict[tuple[float, str, str], list[float]]  # CIDEr by fraction, decoder and fusion


@dataclass(frozen=True)
class Run:
    """A run of the experiment.

    Attributes:
        fraction: fraction of the training photos.
        decoder: "lm" for the language model, "none" for random weights.
        fusion: kind of the fusion.
        seed: seed of photos and training.
        tau: threshold of the gates, if not that of the variant.
    """

    fraction: float
    decoder: str
    fusion: str
    seed: int
    tau: float | None = None


def main() -> None:
    """Trains, evaluates, prints the table and plots it."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("--data", type=Path, required=True, help="train.csv, dev.csv, images/")
    parser.add_argument("--texts", type=Path, required=True, help="folder of captions_*.json")
    parser.add_argument("--out", type=Path, required=True, help="folder of the runs")
    parser.add_argument(
        "--fractions", type=float, nargs="+", default=FRACTIONS, help="fractions of the photos"
    )
    parser.add_argument(
        "--seeds", type=int, default=3, help="runs of each kind below fraction 1 (default: 3)"
    )
    parser.add_argument(
        "--tau", type=float, nargs="+", default=[], help="further gate thresholds (default: none)"
    )
    arguments = parser.parse_args()

    out = arguments.out
    out.mkdir(parents=True, exist_ok=True)
    for name, variant in VARIANTS.items():
        (out / f"{name}.json").write_text(json.dumps(variant), encoding="utf-8")
    make_language_model(arguments.texts, out / "lm")
    features = make_regions(arguments.data, out / "detections.hdf5")
    kinds = [
        (fraction, decoder, fusion, None)
        for fraction, decoder, fusion in product(arguments.fractions, ("lm", "none"), VARIANTS)
    ]
    kinds += [
        (fraction, "lm", "gated", tau)
        for tau, fraction in product(arguments.tau, arguments.fractions)
    ]
    scores: Scores = {}
    for fraction, decoder, fusion, tau in kinds:
        for seed in range(1 if fraction == 1 else arguments.seeds):
            run = Run(fraction, decoder, fusion, seed, tau)
            cider = train_and_score(run, arguments.data, features, out)["CIDEr"]
            label = fusion if tau is None else f"tau {tau}"
            scores.setdefault((fraction, decoder, label), []).append(cider)
    print_table(scores)
    plot(scores, out / "low_data.png")


def make_language_model(texts: Path, folder: Path) -> None:
    """Trains the decoder on captions alone and writes it in the format of Hugging Face's GPT-2."""
    if (folder / "config.json").is_file():
        return
    from language_model import train_language_model

    captions = []
    for path in sorted(texts.glob("captions_*.json")):
        content = json.loads(path.read_text(encoding="utf-8"))
        captions += [record["caption"] for record in content["annotations"]]
    train_language_model(captions, GATED["decoder"], folder)


def make_regions(data: Path, path: Path) -> Path:
    """Writes the regions of all train and dev photos."""
    photos = ("--csv", data / "train.csv", data / "dev.csv", "--images", data / "images")
    effcap("features", *photos, "--backbone", "efficientnet_lite0", "--out", path)
    return path


def train_and_score(run: Run, data: Path, features: Path, out: Path) -> dict[str, float]:
    """Trains on a fraction of the photos, and scores the captions of all dev photos."""
    train = (
        *("regions", "--features", features, "--csv", data / "train.csv", "--tidy"),
        *("--model", out / f"{run.fusion}.json", "--tokenizer", out / "lm"),
        *("--train-fraction", run.fraction),
        *(("--weights", out / "lm") if run.decoder == "lm" else ()),
        *set_options(
            (
                f"training.seed={run.seed}",
                "training.epochs=1",
                f"training.passes_per_epoch={PASSES.get(run.fraction, 2)}",
                *(() if run.tau is None else (f"decoder.fusion.tau={run.tau}",)),
            )
        ),
    )
    evaluate = (
        *("--csv", data / "dev.csv", "--features", features),
        *("--batch-size", 50, "--max-new-tokens", 30),
    )
    fusion = run.fusion if run.tau is None else f"tau{run.tau}"
    folder = out / f"{run.fraction}-{run.decoder}-{fusion}-{run.seed}"
    return score(folder, train, evaluate)


def print_table(scores: Scores) -> None:
    """Prints the mean and the standard deviation of each kind of run."""
    table = Table("photos", "decoder", "fusion", "CIDEr", "standard deviation", "runs")
    for (fraction, decoder, fusion), values in scores.items():
        deviation = f"{statistics.stdev(values):.3f}" if len(values) > 1 else ""
        start = "language model" if decoder == "lm" else "random"
        mean = f"{statistics.mean(values):.3f}"
        table.add_row(f"{fraction:.0%}", start, fusion, mean, deviation, str(len(values)))
    Console().print(table)


def plot(scores: Scores, path: Path) -> None:
    """Plots CIDEr by fraction of the photos."""
    try:
        import matplotlib
    except ImportError:
        print("no plot: pip install matplotlib")
        return
    matplotlib.use("agg")
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(figsize=(6.4, 4), layout="constrained")
    kinds = product(("lm", "none"), VARIANTS)
    for (decoder, fusion), style in zip(kinds, ("C0o-", "C1s-", "C0o:", "C1s:"), strict=True):
        points = sorted(
            (key[0], values) for key, values in scores.items() if key[1:] == (decoder, fusion)
        )
        if not points:
            continue
        means = [statistics.mean(values) for _, values in points]
        deviations = [statistics.stdev(values) if len(values) > 1 else 0 for _, values in points]
        start = "language model" if decoder == "lm" else "random decoder"
        percent = [100 * fraction for fraction, _ in points]
        axes.errorbar(percent, means, deviations, fmt=style, capsize=3, label=f"{fusion}, {start}")
    axes.set(xscale="log", xlabel="% of Flickr8k's training photos", ylabel="CIDEr, dev photos")
    axes.set_ylim(bottom=0)
    axes.minorticks_off()
    axes.set_xticks([100 * f for f in FRACTIONS], [f"{100 * f:g}" for f in FRACTIONS])
    axes.legend(frameon=False)
    figure.savefig(path, dpi=150)
    print(f"plot: {path}")


if __name__ == "__main__":
    main()
