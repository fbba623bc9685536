"""Tests of effcap.encoders.image."""

from __future__ import annotations

import warnings

import keras
import numpy as np
import pytest
from helpers.captioners import numpy, tiny_network

from effcap.backbones.backbone import Backbone
from effcap.encoders.image import ImageEncoder

PHOTOS = np.random.default_rng(0).integers(0, 256, (2, 32, 32, 3), dtype=np.uint8)


def encoder(**changes) -> ImageEncoder:
    arguments = {"backbone": Backbone(tiny_network()), "width": 8, "blocks": 2, "heads": 2}
    layer = ImageEncoder(**arguments | changes)
    layer.build()
    return layer


def seen(layer: ImageEncoder, inputs: dict, **options) -> np.ndarray:
    """The one memory (B, S, D) of some inputs."""
    ((values, visible),) = layer(inputs, **options)
    assert visible is None
    return numpy(values)


def test_memory_of_photos_is_that_of_their_features():
    layer = encoder()
    memory = seen(layer, {"images": PHOTOS})
    features = numpy(layer.features(PHOTOS))
    assert memory.shape == (2, 16, 8) and layer.memory_shapes == [(None, 16, 8)]
    received = seen(layer, {"features": features})
    np.testing.assert_allclose(received, memory, rtol=1e-4, atol=1e-5)
    half = features.astype("float16")  # as they are kept on disk
    halved = seen(layer, {"features": half})
    np.testing.assert_allclose(halved, memory, atol=0.02)


def test_every_position_sees_every_other():
    layer, rng = encoder(blocks=1), np.random.default_rng(1)
    features = rng.normal(size=(1, 16, 12)).astype("float32")
    before = seen(layer, {"features": features})
    for changed in (0, 15):
        other = features.copy()
        other[:, changed] += rng.normal(size=12)
        assert (np.abs(seen(layer, {"features": other}) - before).max(axis=-1) > 1e-6).all()


def test_equal_features_are_told_apart_by_their_position():
    layer = encoder(blocks=0)
    memory = seen(layer, {"features": np.ones((1, 16, 12), "float32")})
    assert np.abs(memory[0, 0] - memory[0, 1:]).max(axis=-1).min() > 1e-3


def test_dropout_is_on_in_training_only():
    layer = encoder(dropout=0.5)
    inputs = {"features": np.ones((1, 16, 12), "float32")}
    np.testing.assert_array_equal(seen(layer, inputs), seen(layer, inputs, training=False))
    difference = seen(layer, inputs, training=True) - seen(layer, inputs)
    assert np.abs(difference).max() > 1e-3


def test_too_many_positions_are_a_warning_with_the_numbers():
    images = keras.Input((132, 128, 3))
    network = keras.Model(images, keras.layers.Conv2D(4, 4, 4)(images))
    with pytest.warns(UserWarning, match="1056 memory positions.*132x128 pixels.*1024"):
        encoder(backbone=Backbone(network))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        encoder()


def test_heads_must_divide_the_width():
    with pytest.raises(ValueError, match="width=8, heads=3"):
        encoder(heads=3)


def test_configuration_comes_back():
    layer = encoder(dropout=0.3, attention_dropout=0.2, blocks=1)
    copy = ImageEncoder.from_config(layer.get_config())
    assert copy.get_config() == layer.get_config()
    copy.build()
    assert [w.shape for w in copy.weights] == [w.shape for w in layer.weights]
