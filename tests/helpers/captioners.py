"""Tiny captioners and batches for any of them."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import keras
import numpy as np
import pytest

from effcap.captioner import Captioner
from effcap.generation import GenerationModel

CAPTIONS = (
    "a brown dog runs through the grass",
    "a black dog jumps over a log",
    "two children play on the beach",
    "a man rides a red bike down the street",
    "a woman in a red coat stands by the water",
    "two dogs play in the water",
)


def _images(encoder: Any, rows: int, rng: np.random.Generator) -> np.ndarray:
    return rng.integers(0, 256, (rows, *encoder.image_size, 3), dtype=np.uint8)


def _features(encoder: Any, rows: int, rng: np.random.Generator) -> np.ndarray:
    return rng.normal(size=(rows, *encoder.backbone.feature_shape)).astype(np.float32)


def _padded(rows: int, length: int, feature_dim: int, rng: np.random.Generator) -> np.ndarray:
    """Returns (B, S, C) features: 1 to `length` random rows each, then zero rows."""
    features = rng.normal(size=(rows, length, feature_dim)).astype(np.float32)  # (B, S, C)
    features[np.arange(length) >= rng.integers(1, length + 1, (rows, 1))] = 0
    return features


def example_inputs(
    encoder: Any, rows: int, seed: int = 0, key: str | None = None
) -> dict[str, np.ndarray]:
    """Returns random inputs of an encoder.

    Args:
        encoder: any encoder.
        rows: batch size B.
        seed: seed of the inputs.
        key: "images" or "features", for an image encoder; "features" by default, which skips the
            backbone.
    """
    rng = np.random.default_rng(seed)
    if "images" in encoder.input_keys:
        make = {"images": _images, "features": _features}
        key = key or "features"
        return {key: make[key](encoder, rows, rng)}
    if "regions" in encoder.input_keys:
        return {"regions": _padded(rows, 6, encoder.feature_dim, rng)}
    return {
        name: _padded(rows, 1 if name == "artist" else 5, feature_dim, rng)
        for name, feature_dim in encoder.modalities.items()
    }


def example_batch(captioner: Captioner, rows: int = 4, key: str | None = None) -> tuple:
    """Returns (inputs, targets, weights) with one caption per row, as the trainers make them."""
    tokenizer = captioner.tokenizer
    captions = tokenizer.encode_batch([CAPTIONS[i % len(CAPTIONS)] for i in range(rows)])
    length = 1 + max(map(len, captions))
    tokens = np.full((rows, length), tokenizer.pad_id, np.int32)  # (B, T)
    targets = np.full((rows, length), tokenizer.pad_id, np.int32)  # (B, T)
    weights = np.zeros((rows, length), np.float32)  # (B, T)
    for row, caption in enumerate(captions):
        tokens[row, : len(caption) + 1] = [tokenizer.bos_id, *caption]
        targets[row, : len(caption) + 1] = [*caption, tokenizer.eos_id]
        weights[row, : len(caption) + 1] = 1
    inputs = example_inputs(captioner.encoder, rows, key=key)
    segments = weights.astype(np.int32)  # (B, T)
    return {**inputs, "tokens": tokens, "segments": segments}, targets, weights


def randomize(captioner: Captioner, seed: int = 0) -> Captioner:
    """Adds noise to every weight outside the backbone, and returns the captioner.

    Weights that start at zero, such as the fusion's output projection, would hide mistakes.
    """
    rng = np.random.default_rng(seed)
    backbone = getattr(captioner.encoder, "backbone", None)
    kept = {id(weight) for weight in backbone.weights} if backbone is not None else set()
    for weight in captioner.weights:
        if id(weight) not in kept:
            weight.assign(weight + 0.15 * rng.normal(size=weight.shape))
    return captioner


def tiny_network(side: int = 32, filters: int = 12) -> keras.Model:
    """Returns a convolutional network of two blocks with batch normalization.

    Args:
        side: height and width of the images in pixels.
        filters: channels C of the feature map (B, side/8, side/8, C).
    """
    layers = keras.layers
    x = images = keras.Input((side, side, 3))
    for block, width in (("block1a", 6), ("block2a", filters)):
        x = layers.Conv2D(width, 3, 2, "same", name=f"{block}_conv")(x)
        x = layers.BatchNormalization(name=f"{block}_bn")(x)
        x = layers.Activation("swish", name=f"{block}_activation")(x)
    x = layers.Conv2D(filters, 3, 2, "same", name="top_conv")(x)
    return keras.Model(images, x, name="tiny_network")


def tiny_hparams(**decoder: Any) -> dict:
    """Returns hyperparameters of a captioner on `tiny_network`, with changes of the decoder."""
    network = keras.saving.serialize_keras_object(tiny_network())
    return {
        "encoder": {
            "kind": "image",
            "backbone": {"network": network, "scale": 1 / 128, "offset": -1.0},
            "num_layers": 1,
            "num_heads": 2,
            "dropout": 0.0,
        },
        "decoder": {
            "kind": "gpt2",
            "vocabulary_size": None,
            "max_sequence_length": 24,
            "hidden_dim": 16,
            "num_heads": 2,
            "num_layers": 2,
            "dropout": 0.0,
            "attention_dropout": 0.0,
            "fusion": {"kind": "cross"},
            **decoder,
        },
    }


def compile_quickly(captioner: Captioner, traced: bool = False) -> None:
    """Compiles for a handful of steps, which TensorFlow runs faster without tracing and XLA."""
    captioner.compile(
        keras.optimizers.AdamW(1e-2),
        run_eagerly=keras.backend.backend() == "tensorflow" and not traced,
        jit_compile=keras.backend.backend() == "jax",
    )


@contextmanager
def eagerly() -> Iterator[None]:
    """Runs TensorFlow's functions without tracing, which is faster for a handful of steps."""
    if keras.backend.backend() != "tensorflow":
        yield
        return
    import tensorflow as tf

    tf.config.run_functions_eagerly(True)
    try:
        yield
    finally:
        tf.config.run_functions_eagerly(False)


def count_traces(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Returns a list that grows by one whenever a `GenerationModel` is traced."""
    traces: list[int] = []
    call = GenerationModel.call

    def counted(self: GenerationModel, inputs: dict) -> dict:
        traces.append(1)
        return call(self, inputs)

    monkeypatch.setattr(GenerationModel, "call", counted)
    return traces


def numpy(tensor: Any) -> np.ndarray:
    """Returns a tensor or variable of any backend as a NumPy array."""
    return keras.ops.convert_to_numpy(tensor)
