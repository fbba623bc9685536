"""Ablations of the shipped preset: dev scores with one change at a time, as a table.

    python benchmarks/experiments/ablation.py --data flickr8k --out runs/ablation

`--data` is a folder with train.csv, dev.csv and images/. All runs start from ImageNet weights and
train on the same number of captions. The baseline is the variant lite0-small with a smaller decoder
and smaller batches. Captions are decoded by beam search with 5 beams unless stated otherwise. The
script may be stopped at any time; started again, it continues.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from commands import rescore, score, set_options
from rich.console import Console
from rich.table import Table

BASE = "baseline: frozen backbone, 2 layers of 192, 5 captions per photo, smoothing 0.1"
BATCH_SIZE = 8  # photos
BASE_SETTINGS = ("decoder.num_layers=2", "decoder.hidden_dim=192", "decoder.num_heads=6")
# (settings, options of `effcap train`) by name, in addition to those of the baseline.
TRAINED: dict[str, tuple[tuple[str, ...], tuple[object, ...]]] = {
    BASE: ((), ()),
    "last 8 blocks of the backbone trained": (
        ("encoder.backbone.trainable_blocks=8", "training.backbone_learning_rate=3e-4"),
        (),
    ),
    "decoder of 1 layer of 96": (
        ("decoder.num_layers=1", "decoder.hidden_dim=96", "decoder.num_heads=3"),
        (),
    ),
    "decoder of 4 layers of 256": (
        ("decoder.num_layers=4", "decoder.hidden_dim=256", "decoder.num_heads=8"),
        (),
    ),
    "192x192 pixels": (("encoder.backbone.image_size=[192,192]",), ()),
    "1 caption per photo at a time": (
        ("training.captions_per_photo=1", f"training.batch_size={5 * BATCH_SIZE}"),
        (),
    ),
    "no label smoothing": (("training.label_smoothing=0",), ()),
    "label smoothing 0.2": (("training.label_smoothing=0.2",), ()),
    "no dropout": (("encoder.dropout=0", "decoder.dropout=0"), ()),
    "vocabulary of 2,048": (("decoder.vocabulary_size=2048",), ()),
    "half of the photos": ((), ("--train-fraction", 0.5)),
    "a quarter of the photos": ((), ("--train-fraction", 0.25)),
}
DECODED: dict[str, tuple[object, ...]] = {
    "1 beam": ("--sampler", "greedy"),
    "3 beams": ("--num-beams", 3),
    "10 beams": ("--num-beams", 10),
    "length penalty 0": ("--length-penalty", 0),
    "length penalty 1": ("--length-penalty", 1),
}
COLUMNS = ("CIDEr", "BLEU-4", "distinct captions", "vocabulary")


def main() -> None:
    """Trains, evaluates and prints the table."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("--data", type=Path, required=True, help="train.csv, dev.csv, images/")
    parser.add_argument("--out", type=Path, required=True, help="folder of the runs")
    parser.add_argument(
        "--epochs", type=int, default=3, help="epochs of 5 captions per photo (default: 3)"
    )
    parser.add_argument(
        "--only", nargs="+", default=[""], help="parts of the names of rows (default: all rows)"
    )
    arguments = parser.parse_args()

    data, out = arguments.data, arguments.out
    images = ("--images", data / "images")
    evaluate = ("--csv", data / "dev.csv", *images, "--batch-size", 50, "--max-new-tokens", 30)
    table = Table("dev photos", *COLUMNS, "validation cross-entropy")
    for name, (settings, options) in TRAINED.items():
        if any(part in name for part in arguments.only):
            folder = out / slug(name)
            epochs = arguments.epochs * (5 if "1 caption per photo" in name else 1)
            epochs = round(epochs / fraction_of(options))
            train = (
                *("csv", "--csv", data / "train.csv", "--val-csv", data / "dev.csv", *images),
                *("--model", "lite0-small", "--tidy", "--horizontal-flip"),
                *(*feature_cache(name, out), *options),
                *set_options(
                    (
                        f"training.epochs={epochs}",
                        f"training.batch_size={BATCH_SIZE}",
                        "training.num_cider_photos=0",  # the end of each run is scored below
                        *BASE_SETTINGS,
                        *settings,
                    )
                ),
            )
            add_row(table, name, score(folder, train, evaluate), folder / "run")
    base = out / slug(BASE)
    for name, options in DECODED.items():
        if any(part in name for part in arguments.only) and (base / "run" / "best").is_dir():
            scores = rescore(base / "run", base / slug(name), (*evaluate, *options))
            add_row(table, f"{name} instead of 5 beams, length penalty 0.7", scores, None)
    Console().print(table)


def feature_cache(name: str, out: Path) -> tuple[object, ...]:
    """Returns options that cache the features of a frozen backbone, by image size."""
    if "backbone trained" in name:
        return ()
    return ("--feature-cache", out / ("cache-192" if "192x192" in name else "cache"))


def fraction_of(options: tuple[object, ...]) -> float:
    """Returns the fraction of the photos that a run trains on."""
    return float(str(options[1])) if options[:1] == ("--train-fraction",) else 1.0


def slug(name: str) -> str:
    """Returns a folder name for a row."""
    return "-".join("".join(c if c.isalnum() else " " for c in name.split(":")[0]).split())


def add_row(table: Table, name: str, scores: dict[str, float], run: Path | None) -> None:
    """Adds scores, and the best validation loss of a run."""
    loss = ""
    if run is not None:
        lines = (run / "log.csv").read_text(encoding="utf-8").splitlines()
        columns = lines[0].split(",")
        losses = [float(line.split(",")[columns.index("val_cross_entropy")]) for line in lines[1:]]
        loss = f"{min(losses):.3f}"
    table.add_row(name, *(f"{scores[column]:.4g}" for column in COLUMNS), loss)


if __name__ == "__main__":
    main()
