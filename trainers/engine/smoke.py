"""A run on nothing: any variant or preset at tiny size, for three steps, on data made up here."""

from __future__ import annotations

import copy
import json
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from effcap.captioner import Captioner, make_parts
from effcap.trainers.batching.in_memory import CaptionBatches
from effcap.trainers.data.example import CaptionedPhoto
from effcap.trainers.data.preparation import PhotoData
from effcap.trainers.engine.run import run
from effcap.trainers.engine.run_folder import LAST
from effcap.trainers.options.run import RunOptions
from effcap.utils.progress import say

PHOTOS, STEPS, BATCH_SIZE = 6, 3, 2
ROWS = 5  # of features
# The most that is left of a hyperparameter, wherever in the sections of a model it stands.
TINY = {
    "image_size": [64, 64],
    "width": 32,
    "heads": 4,
    "layers": 2,
    "blocks": 1,
    "inner": 64,
    "positions": 32,
}
TINY_NETWORK = "efficientnet_lite0"
COLOURS = ("red", "green", "blue", "yellow", "white", "black")


def shrink(hparams: dict) -> dict:
    """A copy of a variant that builds and trains in seconds: same parts, same wiring, tiny."""

    def shrunk(value: Any, name: str = "") -> Any:
        if isinstance(value, dict):
            return {key: shrunk(item, key) for key, item in value.items()}
        if name == "network" and isinstance(value, str):
            return TINY_NETWORK
        if name in TINY and value is not None:
            return min(value, TINY[name])
        return value

    small = copy.deepcopy(hparams)
    for section in ("encoder", "decoder"):
        small[section] = shrunk(small[section])
    network = hparams["encoder"].get("backbone", {}).get("network")
    if isinstance(network, dict):  # a Keras model, which is as large as it is
        small["encoder"]["backbone"] = copy.deepcopy(hparams["encoder"]["backbone"])
    # The vocabulary is the tokenizer's.
    small["decoder"] |= {"vocabulary_size": None, "width": TINY["width"]}
    return small


def smoke(options: RunOptions, folder: Path) -> None:
    """Tries a configuration in seconds: its parts are made at full size, without weights for the
    decoder; then a tiny copy takes three steps on generated photos, is saved, loaded, and captions.

    A captioner of photos sees photos of coloured noise, another random features.

    Args:
        options: of the run that is to come; its data, weights and length are left out.
        folder: for what the trial makes.

    Raises:
        ValueError: for hyperparameters or options that do not fit.
    """
    started = time.perf_counter()
    check_parts(options)
    tiny = shrink(options.hparams)
    tiny["training"] = {**tiny.get("training", {}), "steps": STEPS, "batch_size": BATCH_SIZE}
    variant = folder / "smoke.json"
    variant.write_text(json.dumps(tiny), encoding="utf-8")
    photos = make_photos(folder / "photos")
    trial = replace(
        options,
        model=variant,
        settings=(),
        weights=None,
        tokenizer=options.tokenizer_folder,
        vocabulary_size=None if options.tokenizer_folder else 300,
        backbone_weights="none",
        cache=folder / "cache" if options.cache else None,
        train_percentage=1.0,
    )
    seen = PhotoData if tiny["encoder"].get("kind") == "image" else MadeData
    run(seen(photos, []), seen(photos[:BATCH_SIZE], []), trial)
    captioner = Captioner.from_preset(trial.folder / LAST)
    if seen is PhotoData:
        captions = captioner.generate([photo.path for photo in photos])
    else:
        captions = captioner.generate_batch(made_features(captioner.encoder, PHOTOS))
    say(
        f"{options.model} works: {STEPS} steps at tiny size, a preset saved and loaded, "
        f"{len(captions)} captions written, in {time.perf_counter() - started:.0f} s"
    )


class MadeData(PhotoData):
    """Captions whose photos are random features, as the encoder takes them."""

    def batches(self, name, captioner, options, **more):
        """See `DataSource`."""
        source = MadeFeatures(captioner.encoder, len(self.photos))
        batches = CaptionBatches(
            self.photos,
            source,
            captioner.tokenizer,
            captioner.decoder.positions,
            batch_size=options.training.batch_size,
            shuffle=name == "training",
            seed=options.training.seed,
            **more,
        )
        return batches, ""


class MadeFeatures:
    """Random features in memory; a `Source`."""

    mirrored = False
    fingerprint = "made"

    def __init__(self, encoder: Any, count: int):
        self.inputs = made_features(encoder, count)

    def load(self, photos, mirror, draws=None) -> dict[str, np.ndarray]:
        """See `Source`."""
        return {name: features[photos] for name, features in self.inputs.items()}


def made_features(encoder: Any, count: int) -> dict[str, np.ndarray]:
    """Random features (B, S, C) of `count` rows, as the encoder takes them."""
    rng = np.random.default_rng(0)
    widths = getattr(encoder, "modalities", None) or {"regions": encoder.channels}
    return {
        name: rng.normal(size=(count, ROWS, width)).astype(np.float32)  # (B,S,C)
        for name, width in widths.items()
    }


def check_parts(options: RunOptions) -> None:
    """Makes the parts of the captioner as large as they are to be; ValueError where one does not
    fit."""
    hparams = copy.deepcopy(options.hparams)
    size = hparams["decoder"].get("vocabulary_size") or options.vocabulary_size or 4096
    hparams["decoder"]["vocabulary_size"] = size
    try:
        make_parts(hparams)
    except (TypeError, ValueError) as error:
        raise ValueError(f"Cannot make {options.model}: {error}") from error


def make_photos(folder: Path, count: int = PHOTOS) -> list[CaptionedPhoto]:
    """So many photos of coloured noise, whose captions say the colour."""
    folder.mkdir(parents=True)
    rng = np.random.default_rng(0)
    photos = []
    for number in range(count):
        colour = COLOURS[number % len(COLOURS)]
        path = folder / f"{number}.png"
        plain = np.asarray(Image.new("RGB", (96, 80), colour), np.int16)  # (h,w,3)
        noise = rng.integers(-40, 40, plain.shape)  # (h,w,3)
        Image.fromarray(np.clip(plain + noise, 0, 255).astype(np.uint8)).save(path)
        photos.append(CaptionedPhoto(path, (f"A {colour} photo.", f"All of it is {colour}.")))
    return photos
