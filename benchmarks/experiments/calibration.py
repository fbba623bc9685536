"""Compares a captioner's confidence with the CIDEr of its captions.

    python benchmarks/experiments/calibration.py --csv flickr8k/dev.csv --images flickr8k/images \
        --plot res/calibration.png

Prints a table of ten equal groups of photos by confidence, the rank correlation of the two, and the
CIDEr of the photos that --min-confidence would keep; with --plot and matplotlib, plots them.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import checkout  # noqa: F401
import numpy as np
from rich.console import Console
from rich.table import Table

from effcap.tools.cli.terminal import start_keras

GROUPS = 10
KEPT = (1.0, 0.75, 0.5, 0.25)  # fractions of the photos


def main() -> None:
    """Runs the experiment."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--csv", type=Path, required=True, help="captions of held-out photos")
    parser.add_argument("--images", type=Path, required=True, help="folder of the photos")
    parser.add_argument("--model", default="flickr8k-lite0", help="preset")
    parser.add_argument("--plot", type=Path, help="picture to write, .png")
    arguments = parser.parse_args()
    confidence, cider = measure(arguments.csv, arguments.images, arguments.model)
    print_tables(confidence, cider)
    if arguments.plot:
        plot(confidence, cider, arguments.plot)


def measure(csv: Path, images: Path, model: str) -> tuple[np.ndarray, np.ndarray]:
    """Returns the confidence and the CIDEr-D of the best caption of each photo."""
    start_keras()
    import effcap
    from effcap.metrics import CiderD, tokenize
    from effcap.tools import caption_folder
    from effcap.trainers import read_csv

    examples = read_csv(csv, images).examples
    captioner = effcap.Captioner.from_preset(model)
    sampler = effcap.Beam(max_new_tokens=30)
    results = caption_folder([x.path for x in examples], captioner, sampler, batch_size=16)
    best = dict(results.captions)
    captioned = [example for example in examples if example.path in best]
    references = [[tokenize(text) for text in example.captions] for example in captioned]
    texts = [tokenize(best[example.path][0].text) for example in captioned]
    confidence = np.array([best[example.path][0].confidence for example in captioned])  # (N,)
    return confidence, CiderD(references).score(texts)  # (N,)


def rank_correlation(x: np.ndarray, y: np.ndarray) -> float:
    """Returns Spearman's correlation of two arrays (N,) without many equal values."""
    ranks = [np.argsort(np.argsort(values)) for values in (x, y)]
    return float(np.corrcoef(*ranks)[0, 1])


def print_tables(confidence: np.ndarray, cider: np.ndarray) -> None:
    """Prints CIDEr by confidence, and that of the most confident photos."""
    order = np.argsort(confidence)  # (N,)
    table = Table("photos", "confidence", "CIDEr", "standard error")
    for group in np.array_split(order, GROUPS):
        error = cider[group].std(ddof=1) / len(group) ** 0.5
        span = f"{confidence[group].min():.3f} to {confidence[group].max():.3f}"
        table.add_row(str(len(group)), span, f"{cider[group].mean():.3f}", f"{error:.3f}")
    Console().print(table)
    table = Table("kept", "--min-confidence", "CIDEr of the kept")
    for fraction in KEPT:
        kept = order[len(order) - round(fraction * len(order)) :]
        table.add_row(
            f"{fraction:.0%}", f"{confidence[kept].min():.3f}", f"{cider[kept].mean():.3f}"
        )
    Console().print(table)
    print(f"rank correlation: {rank_correlation(confidence, cider):.3f}")


def plot(confidence: np.ndarray, cider: np.ndarray, path: Path) -> None:
    """Plots the CIDEr of each photo and of groups of photos by confidence."""
    try:
        import matplotlib
    except ImportError:
        print("no plot: pip install matplotlib")
        return
    matplotlib.use("agg")
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(figsize=(6.4, 4), layout="constrained")
    axes.scatter(confidence, cider, s=6, alpha=0.25, color="C7", label="a photo", linewidths=0)
    groups = np.array_split(np.argsort(confidence), GROUPS)
    x = [confidence[group].mean() for group in groups]
    y = [cider[group].mean() for group in groups]
    errors = [cider[group].std(ddof=1) / len(group) ** 0.5 for group in groups]
    axes.errorbar(x, y, errors, fmt="C1o-", capsize=3, label="a tenth of the photos")
    axes.set(xlabel="confidence of the caption", ylabel="CIDEr-D of the caption")
    axes.set_ylim(-0.05, float(np.quantile(cider, 0.98)))
    axes.legend(frameon=False)
    figure.savefig(path, dpi=120)
    print(f"plot: {path}")


if __name__ == "__main__":
    main()
