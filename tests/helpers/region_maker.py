"""Small made region features for the tests."""

from __future__ import annotations

import json
from pathlib import Path

import h5py
import numpy as np

CHANNELS = 6
COLOURS = ("red", "green", "blue", "white")


def features_of(number: int, rows: int = 3, channels: int = CHANNELS) -> np.ndarray:
    """(N, C) that differ from photo to photo, and tell its colour."""
    features = np.random.default_rng(number).normal(size=(rows, channels)).astype(np.float32)
    features[:, 0] = 3 * (number % len(COLOURS)) - 4
    return features


def make_regions(path: Path, count: int = 12, form: str = "{}_features", **more) -> Path:
    """A file with features of photos 0 ... count - 1 of 1 to 4 regions; `more` datasets by name."""
    with h5py.File(path, "w") as file:
        for number in range(count):
            file[form.format(number)] = features_of(number, 1 + number % 4)
        for name, features in more.items():
            file[name] = features
    return path


def make_annotations(path: Path, numbers, names: str = "COCO_val2014_{:012}.jpg") -> Path:
    """Captions in COCO's form, two of each photo."""
    numbers = list(numbers)
    content = {
        "images": [{"id": n, "file_name": names.format(n)} for n in numbers],
        "annotations": [
            {"image_id": n, "caption": f"{start} {COLOURS[n % 4]} square."}
            for n in numbers
            for start in ("A", "There is a")
        ],
    }
    path.write_text(json.dumps(content))
    return path


def region_hparams(channels: int = CHANNELS) -> dict:
    """Hyperparameters of a tiny VisualGPT."""
    return {
        "encoder": {
            "kind": "regions",
            "channels": channels,
            "layers": 2,
            "heads": 2,
            "inner": 16,
            "dropout": 0.1,
        },
        "decoder": {
            "vocabulary_size": None,
            "positions": 32,
            "width": 16,
            "heads": 2,
            "layers": 1,
            "dropout": 0.1,
            "attention_dropout": 0.1,
            "fusion": {"kind": "meshed", "tau": 0.2},
        },
        "training": {"batch_size": 4, "epochs": 2, "learning_rate": 3e-3},
    }
