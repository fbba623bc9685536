"""Tiny captioners, and batches for any of them."""

from __future__ import annotations

from typing import Any

import keras
import numpy as np

from effcap.captioner import Captioner

CAPTIONS = (
    "a brown dog runs through the grass",
    "a black dog jumps over a log",
    "two children play on the beach",
    "a man rides a red bike down the street",
    "a woman in a red coat stands by the water",
    "two dogs play in the water",
)


def _images(encoder, rows: int, rng: np.random.Generator) -> np.ndarray:
    return rng.integers(0, 256, (rows, *encoder.image_size, 3), dtype=np.uint8)


def _features(encoder, rows: int, rng: np.random.Generator) -> np.ndarray:
    return rng.normal(size=(rows, *encoder.backbone.feature_shape)).astype(np.float32)


def _padded(rows: int, most: int, channels: int, rng: np.random.Generator) -> np.ndarray:
    """Rows of up to `most` features each, the rest zero."""
    features = rng.normal(size=(rows, most, channels)).astype(np.float32)  # (B,S,C)
    features[np.arange(most) >= rng.integers(1, most + 1, (rows, 1))] = 0
    return features


def example_inputs(encoder, rows: int, seed: int = 0, key: str | None = None) -> dict:
    """Random inputs of `rows` rows, all that the encoder takes.

    Of images and features, which mean the same, those called `key`; by default features, which
    spares the tests the vision network.
    """
    rng = np.random.default_rng(seed)
    if "images" in encoder.input_keys:
        make = {"images": _images, "features": _features}
        key = key or "features"
        return {key: make[key](encoder, rows, rng)}
    if "regions" in encoder.input_keys:
        return {"regions": _padded(rows, 6, encoder.channels, rng)}
    return {
        name: _padded(rows, 1 if name == "artist" else 5, channels, rng)
        for name, channels in encoder.modalities.items()
    }


def example_batch(captioner: Captioner, rows: int = 4, key: str | None = None) -> tuple:
    """(inputs, targets, weights) of `rows` rows of one caption, as the trainers make them."""
    tokenizer = captioner.tokenizer
    captions = tokenizer.encode_batch([CAPTIONS[i % len(CAPTIONS)] for i in range(rows)])
    length = 1 + max(map(len, captions))
    tokens = np.full((rows, length), tokenizer.pad_id, np.int32)  # (B,T)
    targets = np.full((rows, length), tokenizer.pad_id, np.int32)  # (B,T)
    weights = np.zeros((rows, length), np.float32)  # (B,T)
    for row, caption in enumerate(captions):
        tokens[row, : len(caption) + 1] = [tokenizer.bos_id, *caption]
        targets[row, : len(caption) + 1] = [*caption, tokenizer.eos_id]
        weights[row, : len(caption) + 1] = 1
    inputs = example_inputs(captioner.encoder, rows, key=key)
    segments = weights.astype(np.int32)  # (B,T)
    return {**inputs, "tokens": tokens, "segments": segments}, targets, weights


def randomize(captioner: Captioner, seed: int = 0) -> Captioner:
    """Moves every weight outside a vision network, so that no part of the model is without effect.

    (What starts at zero, such as the fusion's output, would hide mistakes.)
    """
    rng = np.random.default_rng(seed)
    backbone = getattr(captioner.encoder, "backbone", None)
    kept = {id(weight) for weight in backbone.weights} if backbone is not None else set()
    for weight in captioner.weights:
        if id(weight) not in kept:
            weight.assign(weight + 0.15 * rng.normal(size=weight.shape))
    return captioner


def tiny_network(side: int = 32, channels: int = 12) -> keras.Model:
    """A vision network of two blocks with batch normalization: (B, side/8, side/8, C)."""
    layers = keras.layers
    x = images = keras.Input((side, side, 3))
    for block, width in (("block1a", 6), ("block2a", channels)):
        x = layers.Conv2D(width, 3, 2, "same", name=f"{block}_conv")(x)
        x = layers.BatchNormalization(name=f"{block}_bn")(x)
        x = layers.Activation("swish", name=f"{block}_activation")(x)
    x = layers.Conv2D(channels, 3, 2, "same", name="top_conv")(x)
    return keras.Model(images, x, name="tiny_network")


def tiny_hparams(**decoder: Any) -> dict:
    """Hyperparameters of a captioner on `tiny_network`."""
    network = keras.saving.serialize_keras_object(tiny_network())
    return {
        "encoder": {
            "kind": "image",
            "backbone": {"network": network, "scale": 1 / 128, "offset": -1.0},
            "blocks": 1,
            "heads": 2,
            "dropout": 0.0,
        },
        "decoder": {
            "vocabulary_size": None,
            "positions": 24,
            "width": 16,
            "heads": 2,
            "layers": 2,
            "dropout": 0.0,
            "attention_dropout": 0.0,
            "fusion": {"kind": "cross"},
            **decoder,
        },
    }


def compile_quickly(captioner: Captioner, learning_rate: float = 1e-2) -> None:
    """Compiles without XLA on TensorFlow, where it costs more than it gives in a test."""
    captioner.compile(
        keras.optimizers.AdamW(learning_rate), jit_compile=keras.backend.backend() == "jax"
    )


def numpy(tensor) -> np.ndarray:
    return keras.ops.convert_to_numpy(tensor)
