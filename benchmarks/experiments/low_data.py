"""Gated against plain cross fusion with few captioned photos, with and without a language model.

    python benchmarks/low_data.py --data flickr8k --texts coco-eval --out runs/low-data

`--data` is a folder with train.csv, dev.csv and images/; `--texts` one of JSON files of captions,
on which a decoder is first trained as a language model: it stands in for GPT-2's weights. All runs
read the same regions, a 7x7 grid of EfficientNet-Lite0, and learn from the same photos at the same
share and seed. Dev scores with 5 beams, as a table, and with matplotlib installed as a plot. Stop
it at any time; it goes on from there.
"""

from __future__ import annotations

import argparse
import json
import statistics
from itertools import product
from pathlib import Path

from commands import effcap, score
from rich.console import Console
from rich.table import Table

SHARES = (0.01, 0.05, 0.2, 1.0)
FUSIONS = {
    "gated": (),
    "plain": ("encoder.levels=1", 'decoder.fusion={"kind": "cross"}'),
}
PASSES = {0.01: 15, 0.05: 6, 0.2: 2, 1.0: 1}  # over the photos
VOCABULARY, POSITIONS = 2048, 128
SMALL = {
    "description": "VisualGPT in small, for regions of EfficientNet-Lite0",
    "encoder": {
        "kind": "regions",
        "channels": 1280,
        "layers": 3,
        "heads": 4,
        "inner": 512,
        "dropout": 0.2,
    },
    "decoder": {
        "vocabulary_size": VOCABULARY,
        "positions": POSITIONS,
        "width": 128,
        "heads": 4,
        "layers": 3,
        "dropout": 0.2,
        "attention_dropout": 0.0,
        "fusion": {"kind": "meshed", "tau": 0.2},
    },
    "training": {"learning_rate": 1e-3, "batch_size": 4, "ema": 0.99},
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("--data", type=Path, required=True, help="train.csv, dev.csv, images/")
    parser.add_argument("--texts", type=Path, required=True, help="folder of captions_*.json")
    parser.add_argument("--out", type=Path, required=True, help="folder of the runs")
    parser.add_argument("--shares", type=float, nargs="+", default=SHARES, help="of the photos")
    parser.add_argument("--seeds", type=int, default=3, help="runs of each kind; one at share 1")
    parser.add_argument("--tau", type=float, nargs="+", default=[], help="more thresholds to try")
    arguments = parser.parse_args()

    out = arguments.out
    out.mkdir(parents=True, exist_ok=True)
    (out / "small.json").write_text(json.dumps(SMALL), encoding="utf-8")
    language_model(arguments.texts, out)
    features = regions(arguments.data, out)
    found: dict[tuple, list[float]] = {}
    for share, model, fusion in product(arguments.shares, ("lm", "none"), FUSIONS):
        for seed in range(1 if share == 1 else arguments.seeds):
            scores = run(arguments, features, share, model, FUSIONS[fusion], seed, fusion)
            found.setdefault((share, model, fusion), []).append(scores["CIDEr"])
    for tau, share in product(arguments.tau, arguments.shares):
        for seed in range(1 if share == 1 else arguments.seeds):
            settings = (f"decoder.fusion.tau={tau}",)
            scores = run(arguments, features, share, "lm", settings, seed, f"tau{tau}")
            found.setdefault((share, "lm", f"tau {tau}"), []).append(scores["CIDEr"])
    show(found)
    plot(found, out / "low_data.png")


def language_model(texts: Path, out: Path) -> None:
    """Trains the decoder alone on captions, and keeps it in the format of Hugging Face's GPT-2."""
    if (out / "lm" / "config.json").is_file():
        return
    from language_model import train_language_model

    captions = []
    for path in sorted(texts.glob("captions_*.json")):
        content = json.loads(path.read_text(encoding="utf-8"))
        captions += [record["caption"] for record in content["annotations"]]
    train_language_model(captions, SMALL["decoder"], out / "lm")


def regions(data: Path, out: Path) -> Path:
    """A file of regions of all photos, train and dev."""
    features = out / "detections.hdf5"
    photos = ("--csv", data / "train.csv", data / "dev.csv", "--images", data / "images")
    effcap("features", *photos, "--backbone", "efficientnet_lite0", "--out", features)
    return features


def run(
    arguments: argparse.Namespace,
    features: Path,
    share: float,
    model: str,
    settings: tuple[str, ...],
    seed: int,
    name: str,
) -> dict[str, float]:
    """Trains on a share of the photos, and scores what it writes for all dev photos."""
    data, out = arguments.data, arguments.out
    held_out = data / "dev.csv"
    train = ("regions", "--features", features, "--csv", data / "train.csv")
    how = ("--model", out / "small.json", "--tokenizer", out / "lm", "--tidy", "--seed", seed)
    length = ("--train-percentage", share, "--epochs", 1)
    weights = ("--weights", out / "lm") if model == "lm" else ()
    more = ("--set", f"training.passes={PASSES.get(share, 2)}", *settings)
    evaluate = ("--csv", held_out, "--features", features, "--batch-size", 50, "--max-tokens", 30)
    folder = out / f"{share}-{model}-{name}-{seed}"
    return score(folder, (*train, *how, *length, *weights, *more), evaluate)


def show(found: dict[tuple, list[float]]) -> None:
    table = Table("photos", "decoder", "fusion", "CIDEr", "spread", "runs")
    for (share, model, fusion), scores in found.items():
        spread = f"{statistics.stdev(scores):.3f}" if len(scores) > 1 else ""
        start = "language model" if model == "lm" else "random"
        mean = f"{statistics.mean(scores):.3f}"
        table.add_row(f"{share:.0%}", start, fusion, mean, spread, str(len(scores)))
    Console().print(table)


def plot(found: dict[tuple, list[float]], path: Path) -> None:
    try:
        import matplotlib
    except ImportError:
        print("no plot: pip install matplotlib")
        return
    matplotlib.use("agg")
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(figsize=(6.4, 4), layout="constrained")
    kinds = product(("lm", "none"), FUSIONS)
    for kind, style in zip(kinds, ("C0o-", "C1s-", "C0o:", "C1s:"), strict=True):
        model, fusion = kind
        points = sorted((key[0], values) for key, values in found.items() if key[1:] == kind)
        if not points:
            continue
        means = [statistics.mean(values) for _, values in points]
        spreads = [statistics.stdev(values) if len(values) > 1 else 0 for _, values in points]
        start = "language model" if model == "lm" else "random decoder"
        shares = [100 * share for share, _ in points]
        axes.errorbar(shares, means, spreads, fmt=style, capsize=3, label=f"{fusion}, {start}")
    axes.set(xscale="log", xlabel="% of Flickr8k's training photos", ylabel="CIDEr, dev photos")
    axes.set_ylim(bottom=0)
    axes.minorticks_off()
    axes.set_xticks([100 * share for share in SHARES], [f"{100 * share:g}" for share in SHARES])
    axes.legend(frameon=False)
    figure.savefig(path, dpi=150)
    print(f"plot: {path}")


if __name__ == "__main__":
    main()
