"""Makes small data sets and tiny captioners for the tests of trainers and command line."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import keras
import numpy as np
from PIL import Image

from effcap.captioner import Captioner
from effcap.tokenizers import Tokenizer
from helpers.captioners import randomize

COLORS = {"red": (220, 30, 30), "green": (20, 180, 60), "blue": (40, 60, 220), "white": (250,) * 3}
PLACES = ("on the grass", "in a street beside a tall house", "by the sea", "at night")
SIZE = 32  # height and width of the tiny captioner's images in pixels


def make_photos(folder: Path, count: int) -> list[tuple[str, list[str]]]:
    """Makes photos of a colored square.

    Returns:
        (file name, 1 to 3 captions of different lengths) of each photo.
    """
    folder.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(0)
    data = []
    for i in range(count):
        color = list(COLORS)[i % len(COLORS)]
        pixels = rng.integers(0, 60, (40, 48, 3)).astype(np.uint8)  # (h,w,3)
        pixels[8:32, 8 + i % 8 : 36] = COLORS[color]
        Image.fromarray(pixels).save(folder / f"{i}.jpg", quality=95)
        captions = [f"A {color} square {PLACES[(i + j) % 4]}." for j in range(1 + i % 3)]
        data.append((f"{i}.jpg", captions))
    return data


def random_jpeg(seed: int) -> bytes:
    """Returns a JPEG of four squares in random colors."""
    colors = np.random.default_rng(seed).integers(0, 256, (2, 2, 3), np.uint8)  # (h,w,3)
    file = io.BytesIO()
    Image.fromarray(colors).resize((48, 40), Image.Resampling.NEAREST).save(file, "JPEG")
    return file.getvalue()


def write_csv(
    path: Path,
    data: Sequence[tuple[str, Sequence[str]]],
    columns: tuple[str, str] = ("image", "caption"),
) -> Path:
    """Writes a CSV file with one caption per line."""
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(columns)
        writer.writerows((name, text) for name, texts in data for text in texts)
    return path


def make_data(folder: Path, count: int = 12) -> Path:
    """Makes photos/, train.csv of `count` photos, and dev.csv of 5 more in a folder."""
    data = make_photos(folder / "photos", count + 5)
    write_csv(folder / "train.csv", data[:count])
    write_csv(folder / "dev.csv", data[count:])
    return folder


def tiny_hparams() -> dict[str, Any]:
    """Returns hyperparameters of a model whose backbone is one convolution."""
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
            "num_layers": 1,
            "num_heads": 2,
            "dropout": 0.1,
        },
        "decoder": {
            "kind": "gpt2",
            "vocabulary_size": None,
            "max_sequence_length": 64,
            "hidden_dim": 16,
            "num_heads": 2,
            "num_layers": 1,
            "dropout": 0.1,
            "attention_dropout": 0.1,
            "fusion": {"kind": "cross"},
        },
        "training": {"batch_size": 4, "epochs": 2, "learning_rate": 3e-3},
    }


def make_variant(path: Path) -> Path:
    """Writes `tiny_hparams` as a JSON file for --model."""
    path.write_text(json.dumps(tiny_hparams()), encoding="utf-8")
    return path


def make_captioner(
    captions: Sequence[str] = ("A red square on the grass.",), **decoder: Any
) -> Captioner:
    """Makes a tiny captioner with random weights.

    Args:
        captions: captions to train the tokenizer on.
        **decoder: changed hyperparameters of the decoder.
    """
    hparams = tiny_hparams()
    hparams["decoder"] |= decoder
    keras.utils.set_random_seed(1)
    return Captioner.from_hparams(hparams, Tokenizer.train(captions, 300))


def make_randomized_captioner(**decoder: Any) -> Captioner:
    """Makes a tiny captioner with random weights everywhere: captions depend on the photo."""
    return randomize(make_captioner(**decoder))
