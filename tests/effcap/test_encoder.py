"""Tests of effcap.encoders.image."""

from __future__ import annotations

import warnings

import keras
import numpy as np
import pytest

from effcap.backbones.backbone import Backbone
from effcap.encoders.image import ImageEncoder
from helpers.captioners import numpy, tiny_network

PHOTOS = np.random.default_rng(0).integers(0, 256, (2, 32, 32, 3), dtype=np.uint8)


def encoder(**changes) -> ImageEncoder:
    arguments = {
        "backbone": Backbone(tiny_network()),
        "hidden_dim": 8,
        "num_layers": 2,
        "num_heads": 2,
    }
    layer = ImageEncoder(**arguments | changes)
    layer.build()
    return layer


def memory_of(layer: ImageEncoder, inputs: dict, **options) -> np.ndarray:
    """Returns the memory (B, S, D) of inputs."""
    ((values, mask),) = layer(inputs, **options)
    assert mask is None
    return numpy(values)


def test_photos_and_their_features_give_the_same_memory():
    layer = encoder()
    memory = memory_of(layer, {"images": PHOTOS})
    features = numpy(layer.features(PHOTOS))
    assert memory.shape == (2, 16, 8) and layer.memory_shapes == [(None, 16, 8)]
    received = memory_of(layer, {"features": features})
    np.testing.assert_allclose(received, memory, rtol=1e-4, atol=1e-5)
    half = features.astype("float16")  # as cached on disk
    halved = memory_of(layer, {"features": half})
    np.testing.assert_allclose(halved, memory, atol=0.02)


def test_every_position_attends_to_every_other():
    layer, rng = encoder(num_layers=1), np.random.default_rng(1)
    features = rng.normal(size=(1, 16, 12)).astype("float32")
    before = memory_of(layer, {"features": features})
    for changed in (0, 15):
        other = features.copy()
        other[:, changed] += rng.normal(size=12)
        assert (np.abs(memory_of(layer, {"features": other}) - before).max(axis=-1) > 1e-6).all()


def test_positions_distinguish_equal_features():
    layer = encoder(num_layers=0)
    memory = memory_of(layer, {"features": np.ones((1, 16, 12), "float32")})
    assert np.abs(memory[0, 0] - memory[0, 1:]).max(axis=-1).min() > 1e-3


def test_dropout_is_active_in_training_only():
    layer = encoder(dropout=0.5)
    inputs = {"features": np.ones((1, 16, 12), "float32")}
    np.testing.assert_array_equal(
        memory_of(layer, inputs), memory_of(layer, inputs, training=False)
    )
    difference = memory_of(layer, inputs, training=True) - memory_of(layer, inputs)
    assert np.abs(difference).max() > 1e-3


def test_many_positions_give_a_warning_with_the_numbers():
    images = keras.Input((132, 128, 3))
    network = keras.Model(images, keras.layers.Conv2D(4, 4, 4)(images))
    with pytest.warns(UserWarning, match="1056 memory positions.*132x128 pixels.*1024"):
        encoder(backbone=Backbone(network))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        encoder()


def test_num_heads_must_divide_hidden_dim():
    with pytest.raises(ValueError, match="hidden_dim=8, num_heads=3"):
        encoder(num_heads=3)


def test_the_config_rebuilds_the_encoder():
    layer = encoder(dropout=0.3, attention_dropout=0.2, num_layers=1)
    copy = ImageEncoder.from_config(layer.get_config())
    assert copy.get_config() == layer.get_config()
    copy.build()
    assert [w.shape for w in copy.weights] == [w.shape for w in layer.weights]
