"""What the shipped preset's score hangs on: one thing changed at a time, as a table of dev scores.

    python benchmarks/ablation.py --data flickr8k --out runs/ablation

`--data` is a folder with train.csv, dev.csv and images/. All runs start from ImageNet's weights and
see equally many captions; what is not changed is as in the variant lite0-small, but for a smaller
decoder and smaller batches, so that there can be many runs. Captions are written with beam search,
5 beams, but where the row says otherwise. Stop it at any time; it goes on from there.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from commands import rescore, score
from rich.console import Console
from rich.table import Table

BASE = "as it is: frozen, 2 layers of 192, 5 captions a photo, smoothing 0.1"
PHOTOS = 8  # per batch
BASE_SETTINGS = ("decoder.layers=2", "decoder.width=192", "decoder.heads=6")
# Name: (settings, options) of `effcap train` beside those of BASE.
TRAINED = {
    BASE: ((), ()),
    "last 8 blocks of the backbone trained": (
        ("encoder.backbone.trainable_blocks=8",),
        ("--backbone-learning-rate", 3e-4),
    ),
    "decoder of 1 layer of 96": (("decoder.layers=1", "decoder.width=96", "decoder.heads=3"), ()),
    "decoder of 4 layers of 256": (
        ("decoder.layers=4", "decoder.width=256", "decoder.heads=8"),
        (),
    ),
    "192x192 pixels": (("encoder.backbone.image_size=[192,192]",), ()),
    "1 caption a photo at a time": ((), ("--captions-per-photo", 1, "--batch-size", 5 * PHOTOS)),
    "no label smoothing": (("training.label_smoothing=0",), ()),
    "label smoothing 0.2": (("training.label_smoothing=0.2",), ()),
    "no dropout": (("encoder.dropout=0", "decoder.dropout=0"), ()),
    "vocabulary of 2,048": ((), ("--vocab-size", 2048)),
    "half of the photos": ((), ("--train-percentage", 0.5)),
    "a quarter of the photos": ((), ("--train-percentage", 0.25)),
}
DECODED = {
    "1 beam": ("--sampler", "greedy"),
    "3 beams": ("--beams", 3),
    "10 beams": ("--beams", 10),
    "length penalty 0": ("--length-penalty", 0),
    "length penalty 1": ("--length-penalty", 1),
}
SHOWN = ("CIDEr", "BLEU-4", "distinct captions", "vocabulary")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("--data", type=Path, required=True, help="train.csv, dev.csv, images/")
    parser.add_argument("--out", type=Path, required=True, help="folder of the runs")
    parser.add_argument("--epochs", type=int, default=3, help="of 5 captions for each photo (3)")
    parser.add_argument("--only", nargs="+", default=[""], help="rows whose name has one of these")
    arguments = parser.parse_args()

    data, out = arguments.data, arguments.out
    images = ("--images", data / "images")
    evaluate = ("--csv", data / "dev.csv", *images, "--batch-size", 50, "--max-tokens", 30)
    table = Table("dev photos", *SHOWN, "validation cross-entropy")
    for name, (settings, options) in TRAINED.items():
        if any(part in name for part in arguments.only):
            folder = out / slug(name)
            epochs = arguments.epochs * (5 if "1 caption a photo" in name else 1)
            epochs = round(epochs / share_of(options))
            # A trained backbone has no features to keep.
            kept = out / ("cache-192" if "192x192" in name else "cache")
            cache = () if "backbone" in name else ("--cache-features", kept)
            train = ("csv", "--csv", data / "train.csv", "--val-csv", data / "dev.csv", *images)
            # The end of each run is scored, so no epoch needs captions of its own.
            how = ("--tidy", "--mirror", "--cider-photos", 0)
            more = (*how, "--model", "lite0-small", "--epochs", epochs, "--batch-size", PHOTOS)
            changes = ("--set", *BASE_SETTINGS, *settings)
            found = score(folder, (*train, *more, *cache, *options, *changes), evaluate)
            add(table, name, found, folder / "run")
    base = out / slug(BASE)
    for name, options in DECODED.items():
        if any(part in name for part in arguments.only) and (base / "run" / "best").is_dir():
            found = rescore(base / "run", base / slug(name), (*evaluate, *options))
            add(table, f"{name} in place of 5 beams, length penalty 0.7", found, None)
    Console().print(table)


def share_of(options: tuple) -> float:
    """The share of the photos that is trained on."""
    return options[1] if options[:1] == ("--train-percentage",) else 1.0


def slug(name: str) -> str:
    """A name for a folder."""
    return "-".join("".join(c if c.isalnum() else " " for c in name.split(":")[0]).split())


def add(table: Table, name: str, scores: dict[str, float], run: Path | None) -> None:
    loss = ""
    if run is not None:
        lines = (run / "log.csv").read_text(encoding="utf-8").splitlines()
        columns = lines[0].split(",")
        losses = [float(line.split(",")[columns.index("val_cross_entropy")]) for line in lines[1:]]
        loss = f"{min(losses):.3f}"
    table.add_row(name, *(f"{scores[column]:.4g}" for column in SHOWN), loss)


if __name__ == "__main__":
    main()
