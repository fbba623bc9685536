"""Small made data for the tests of the trainers and the command line."""

from __future__ import annotations

import csv
import json
from collections.abc import Sequence
from pathlib import Path

import keras
import numpy as np
from PIL import Image

from effcap.captioner import Captioner
from effcap.tokenizers.tokenizer import Tokenizer

COLOURS = {"red": (220, 30, 30), "green": (20, 180, 60), "blue": (40, 60, 220), "white": (250,) * 3}
PLACES = ("on the grass", "in a street beside a tall house", "by the sea", "at night")
SIZE = 32


def make_photos(folder: Path, count: int) -> list[tuple[str, list[str]]]:
    """Photos of a coloured square, and captions of different lengths and numbers for each."""
    folder.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(0)
    data = []
    for i in range(count):
        colour = list(COLOURS)[i % len(COLOURS)]
        pixels = rng.integers(0, 60, (40, 48, 3)).astype(np.uint8)  # (h,w,3)
        pixels[8:32, 8 + i % 8 : 36] = COLOURS[colour]
        Image.fromarray(pixels).save(folder / f"{i}.jpg", quality=95)
        captions = [f"A {colour} square {PLACES[(i + j) % 4]}." for j in range(1 + i % 3)]
        data.append((f"{i}.jpg", captions))
    return data


def write_csv(
    path: Path,
    data: Sequence[tuple[str, Sequence[str]]],
    columns: tuple[str, str] = ("image", "caption"),
) -> Path:
    """A line per caption."""
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(columns)
        writer.writerows((name, text) for name, texts in data for text in texts)
    return path


def make_data(folder: Path, count: int = 12) -> Path:
    """`folder` with photos/, train.csv of `count` photos, and dev.csv of 5 more."""
    data = make_photos(folder / "photos", count + 5)
    write_csv(folder / "train.csv", data[:count])
    write_csv(folder / "dev.csv", data[count:])
    return folder


def tiny_hparams() -> dict:
    """Hyperparameters of a model with a backbone of one convolution: it is built in no time."""
    image = keras.Input((SIZE, SIZE, 3))
    x = keras.layers.Conv2D(8, 16, 16, activation="relu", name="stem")(image)  # (B,2,2,8)
    network = keras.Model(image, x, name="tiny")
    return {
        "encoder": {
            "kind": "image",
            "backbone": {
                "network": keras.saving.serialize_keras_object(network),
                "scale": 1 / 255,
                "trainable_blocks": 0,
            },
            "blocks": 1,
            "heads": 2,
            "dropout": 0.1,
        },
        "decoder": {
            "vocabulary_size": None,
            "positions": 64,
            "width": 16,
            "heads": 2,
            "layers": 1,
            "dropout": 0.1,
            "attention_dropout": 0.1,
            "fusion": {"kind": "cross"},
        },
        "training": {"batch_size": 4, "epochs": 2, "learning_rate": 3e-3},
    }


def make_variant(path: Path) -> Path:
    """`tiny_hparams` as a JSON file for --model."""
    path.write_text(json.dumps(tiny_hparams()), encoding="utf-8")
    return path


def make_captioner(
    captions: Sequence[str] = ("A red square on the grass.",), **changes
) -> Captioner:
    """A tiny captioner with random weights; `changes` are of the decoder."""
    hparams = tiny_hparams()
    hparams["decoder"] |= changes
    keras.utils.set_random_seed(1)
    return Captioner.from_hparams(hparams, Tokenizer.train(captions, 300))
