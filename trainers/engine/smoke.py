"""Smoke test of a configuration: a tiny copy of it trains for three steps on generated data."""

from __future__ import annotations

import copy
import json
import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from PIL import Image

from effcap.captioner import Captioner, create_encoder_and_decoder
from effcap.config import merge_hparams
from effcap.tokenizers import Tokenizer
from effcap.trainers.data.dataset import CheckedExamples, ExampleDataset
from effcap.trainers.data.example import Example
from effcap.trainers.data.photos import PhotoDataset
from effcap.trainers.engine.run import run
from effcap.trainers.options.batches import BatchOptions
from effcap.trainers.options.run import LAST, VOCABULARY_SIZE, RunOptions
from effcap.utils.progress import print_line

if TYPE_CHECKING:
    import keras

NUM_PHOTOS, NUM_STEPS, BATCH_SIZE = 6, 3, 2
NUM_ROWS = 5  # feature rows per example
SMALL_VOCABULARY_SIZE = 300
SMALL_NETWORK = "efficientnet_lite0"
SHORT = 32  # positions of the text
# Upper limits of hyperparameters, in any section of a model.
LIMITS = {
    "image_size": [64, 64],
    "hidden_dim": 32,
    "num_heads": 4,
    "num_layers": 2,
    "intermediate_dim": 64,
    "max_sequence_length": SHORT,
    "prefix_length": 4,
    "clip_length": 4,
    "first_cross_layer": 1,
    "projection_dim": 32,
}
PREFIX_POSITIONS = 16  # added to max_sequence_length, of which a prefix takes a part
COLORS = ("red", "green", "blue", "yellow", "white", "black")


def smoke(options: RunOptions, folder: Path) -> None:
    """Tests a configuration in seconds.

    Encoder and decoder are created at full size, without weights of the decoder. Then a tiny copy
    trains for three steps on generated photos or features, is saved and loaded, and writes
    captions.

    Args:
        options: options of the run to test. Its data, weights and length are not used.
        folder: folder for the files of the test.

    Raises:
        ValueError: hyperparameters or options do not fit.
    """
    started = time.perf_counter()
    check_hparams(options)
    tiny = shrink(options.hparams)
    tiny["training"] = {**tiny.get("training", {}), "steps": NUM_STEPS, "batch_size": BATCH_SIZE}
    variant = folder / "smoke.json"
    variant.write_text(json.dumps(tiny), encoding="utf-8")
    examples = make_photos(folder / "photos")
    trains_tokenizer = options.tokenizer_folder is None
    changes: dict[str, Any] = {
        "model": variant,
        "encoder": {},
        "decoder": {"vocabulary_size": SMALL_VOCABULARY_SIZE} if trains_tokenizer else {},
        "training": {},
        "weights": None,
        "tokenizer": options.tokenizer_folder,
        "backbone_weights": "none",
        "feature_cache": folder / "cache" if options.feature_cache else None,
        "train_fraction": 1.0,
    }
    if options.lora is not None:
        changes |= smoke_base(tiny, examples, folder / "base")
    tiny_options = replace(options, **changes)
    takes_photos = "backbone" in tiny["encoder"]
    dataset_class = PhotoDataset if takes_photos else RandomFeatureDataset
    run(dataset_class(examples, []), dataset_class(examples[:BATCH_SIZE], []), tiny_options)
    captioner = Captioner.from_preset(tiny_options.folder / LAST)
    captions: Any
    if takes_photos:
        captions = captioner.generate([example.path for example in examples])
    else:
        captions = captioner.generate_batch(random_features(captioner.encoder, NUM_PHOTOS))
    print_line(
        f"{options.model} works: {NUM_STEPS} steps at tiny size, a preset saved and loaded, "
        f"{len(captions)} captions written, in {time.perf_counter() - started:.0f} s"
    )


def smoke_base(
    tiny: Mapping[str, Any], examples: Sequence[Example], folder: Path
) -> dict[str, Any]:
    """Saves a tiny captioner to add an adapter to; returns the fields of `RunOptions` for it."""
    captions = [caption for example in examples for caption in example.captions]
    tokenizer = Tokenizer.train(captions, SMALL_VOCABULARY_SIZE)
    Captioner.from_hparams(tiny, tokenizer).save_to_preset(folder)
    training = {"steps": NUM_STEPS, "batch_size": BATCH_SIZE}
    preset = {"decoder": {}, "training": training, "tokenizer": None, "backbone_weights": None}
    return {"model": folder, **preset}


def check_hparams(options: RunOptions) -> None:
    """Checks the model's hyperparameters by creating its encoder and decoder at full size.

    Raises:
        ValueError: hyperparameters do not fit.
    """
    size = options.hparams["decoder"].get("vocabulary_size") or VOCABULARY_SIZE
    hparams = merge_hparams(options.hparams, {"decoder": {"vocabulary_size": size}})
    try:
        create_encoder_and_decoder(hparams)
    except (TypeError, ValueError) as error:
        raise ValueError(f"Cannot create {options.model}: {error}") from error


def shrink(hparams: dict[str, Any]) -> dict[str, Any]:
    """Returns a tiny copy of a variant with the same structure, which trains in seconds."""

    def shrink_value(value: Any, name: str = "") -> Any:
        if isinstance(value, dict):
            if isinstance(value.get("network"), dict):
                return value  # a backbone from a Keras model, whose size is fixed
            items = {key: shrink_value(item, key) for key, item in value.items()}
            if "network" in items:
                for key in ("output", "sizes"):  # the small network has only one
                    items.pop(key, None)
            return items
        if name == "network":
            return SMALL_NETWORK
        if name in LIMITS and value is not None:
            return min(value, LIMITS[name])
        return value

    tiny = copy.deepcopy(hparams)
    tiny.pop("sampler", None)  # it may suppress tokens that the small vocabulary lacks
    for section in ("encoder", "decoder"):
        tiny[section] = shrink_value(tiny[section])
    # The vocabulary is that of the tokenizer.
    tiny["decoder"].pop("output_vocabulary", None)
    tiny["decoder"] |= {"vocabulary_size": None, "hidden_dim": LIMITS["hidden_dim"]}
    if (tiny["decoder"].get("fusion") or {}).get("kind") == "prefix":
        tiny["decoder"]["max_sequence_length"] = SHORT + PREFIX_POSITIONS
    return tiny


def make_photos(folder: Path, count: int = NUM_PHOTOS) -> list[Example]:
    """Writes photos of colored noise, with captions that name the color."""
    folder.mkdir(parents=True)
    rng = np.random.default_rng(0)
    examples = []
    for number in range(count):
        color = COLORS[number % len(COLORS)]
        path = folder / f"{number}.png"
        plain = np.asarray(Image.new("RGB", (96, 80), color), np.int16)  # (h,w,3)
        noise = rng.integers(-40, 40, plain.shape)  # (h,w,3)
        Image.fromarray(np.clip(plain + noise, 0, 255).astype(np.uint8)).save(path)
        examples.append(Example(path, (f"A {color} photo.", f"All of it is {color}.")))
    return examples


class RandomFeatureDataset(ExampleDataset):
    """A dataset whose encoder inputs are random features."""

    def check(self, captioner: Captioner, options: BatchOptions) -> CheckedExamples:
        """Returns all examples, with random features."""
        loader = RandomFeatures(captioner.encoder, len(self.examples))
        return CheckedExamples(self.examples, loader, [])


class RandomFeatures:
    """Random features in memory; an `InputLoader`.

    Args:
        encoder: encoder that takes the features.
        count: number of examples.
    """

    can_flip = False
    fingerprint = "random"

    def __init__(self, encoder: keras.layers.Layer, count: int) -> None:
        self.inputs = random_features(encoder, count)

    def load(
        self, indices: np.ndarray, flip: np.ndarray, draws: np.ndarray | None = None
    ) -> dict[str, np.ndarray]:
        """Returns the features (B, S, C) of examples; `flip` and `draws` are ignored."""
        return {name: features[indices] for name, features in self.inputs.items()}


def random_features(encoder: Any, count: int) -> dict[str, np.ndarray]:
    """Returns random features (B, S, C) of `count` examples by the encoder's input names."""
    rng = np.random.default_rng(0)
    dims = getattr(encoder, "modalities", None) or {"regions": encoder.feature_dim}
    return {
        name: rng.normal(size=(count, NUM_ROWS, dim)).astype(np.float32)  # (B,S,C)
        for name, dim in dims.items()
    }
