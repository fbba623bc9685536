"""Makes small files of region features, their captions and hyperparameters."""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import h5py
import numpy as np

FEATURE_DIM = 6
COLORS = ("red", "green", "blue", "white")


def features_of(number: int, rows: int = 3, feature_dim: int = FEATURE_DIM) -> np.ndarray:
    """Returns features (N, C) that depend on the photo's number and encode its color."""
    features = np.random.default_rng(number).normal(size=(rows, feature_dim)).astype(np.float32)
    features[:, 0] = 3 * (number % len(COLORS)) - 4
    return features


def make_regions(path: Path, count: int = 12, form: str = "{}_features", **others: Any) -> Path:
    """Writes a file with 1 to 4 regions of each photo.

    Args:
        path: the file.
        count: number of photos.
        form: format of the datasets' names.
        **others: other datasets by name.
    """
    with h5py.File(path, "w") as file:
        for number in range(count):
            file[form.format(number)] = features_of(number, 1 + number % 4)
        for name, features in others.items():
            file[name] = features
    return path


def make_annotations(
    path: Path, numbers: Iterable[int], names: str = "COCO_val2014_{:012}.jpg"
) -> Path:
    """Writes COCO annotations with two captions per photo."""
    numbers = list(numbers)
    content = {
        "images": [{"id": n, "file_name": names.format(n)} for n in numbers],
        "annotations": [
            {"image_id": n, "caption": f"{start} {COLORS[n % 4]} square."}
            for n in numbers
            for start in ("A", "There is a")
        ],
    }
    path.write_text(json.dumps(content))
    return path


def region_hparams(feature_dim: int = FEATURE_DIM) -> dict[str, Any]:
    """Returns hyperparameters of a tiny VisualGPT."""
    return {
        "encoder": {
            "kind": "regions",
            "feature_dim": feature_dim,
            "num_layers": 2,
            "num_heads": 2,
            "intermediate_dim": 16,
            "dropout": 0.1,
        },
        "decoder": {
            "kind": "gpt2",
            "vocabulary_size": None,
            "max_sequence_length": 32,
            "hidden_dim": 16,
            "num_heads": 2,
            "num_layers": 1,
            "dropout": 0.1,
            "attention_dropout": 0.1,
            "fusion": {"kind": "meshed", "tau": 0.2},
        },
        "training": {"batch_size": 4, "epochs": 2, "learning_rate": 3e-3},
    }
