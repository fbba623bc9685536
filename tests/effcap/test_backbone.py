"""Tests of effcap.backbones.backbone: sizes, freezing, and networks of the user's own."""

from __future__ import annotations

import json

import keras
import numpy as np
import pytest
from helpers.captioners import numpy, tiny_network

from effcap.backbones.backbone import Backbone

PHOTOS = np.random.default_rng(0).integers(0, 256, (2, 32, 32, 3), dtype=np.uint8)


def train(backbone: Backbone, steps: int = 2) -> tuple[dict, dict]:
    """All weights of a backbone before and after some steps of training, by path."""
    model = keras.Sequential([backbone, keras.layers.Dense(1)])
    model.compile(keras.optimizers.SGD(0.1), "mse", jit_compile=keras.backend.backend() == "jax")
    model.build((None, *backbone.image_size, 3))
    before = {weight.path: numpy(weight) + 0 for weight in backbone.net.weights}
    targets = np.ones((2, backbone.feature_shape[0], 1), np.float32)
    for _ in range(steps):
        model.train_on_batch(PHOTOS, targets)
    return before, {weight.path: numpy(weight) for weight in backbone.net.weights}


def moved(before: dict, after: dict) -> set[str]:
    """Names of the layers whose weights changed."""
    return {p.split("/")[-2] for p in before if not np.array_equal(before[p], after[p])}


def test_features_are_those_of_the_network_after_its_preprocessing():
    network = tiny_network()
    backbone = Backbone(network, scale=[0.1, 0.2, 0.3], offset=[1, 2, 3])
    expected = numpy(network(PHOTOS * np.array([0.1, 0.2, 0.3], "float32") + [1, 2, 3]))
    received = numpy(backbone(PHOTOS))
    assert backbone.feature_shape == (16, 12) and received.shape == (2, 16, 12)
    np.testing.assert_allclose(received, expected.reshape(2, 16, 12), rtol=1e-5, atol=1e-4)


def test_frozen_network_does_not_move_not_even_its_batch_statistics():
    backbone = Backbone(tiny_network(), trainable_blocks=0)
    assert backbone.trainable_weights == [] and backbone.blocks == ["block1a", "block2a"]
    assert moved(*train(backbone)) == set()


def test_frozen_network_sees_the_same_in_training():
    """Dropout, such as EfficientNet's stochastic depth, is off as well."""
    images = keras.Input((32, 32, 3))
    x = keras.layers.Dropout(0.5)(keras.layers.Conv2D(4, 3, 4)(images))
    network = keras.Model(images, x)
    frozen, trained = Backbone(network), Backbone(network, trainable_blocks="all")
    assert np.abs(numpy(trained(PHOTOS, training=True) - trained(PHOTOS))).max() > 0
    network.trainable = False
    np.testing.assert_array_equal(numpy(frozen(PHOTOS, training=True)), numpy(frozen(PHOTOS)))


@pytest.mark.parametrize(
    "blocks, expected",
    [
        (1, {"block2a_conv", "block2a_bn", "top_conv"}),
        (2, {"block1a_conv", "block1a_bn", "block2a_conv", "block2a_bn", "top_conv"}),
    ],
)
def test_exactly_the_last_blocks_and_the_head_are_trained(blocks, expected):
    network = tiny_network()
    stem = keras.layers.Conv2D(3, 3, padding="same", name="stem_conv")
    images = keras.Input((32, 32, 3))
    x = stem(images)
    for layer in network.layers[1:]:
        x = layer(x)
    backbone = Backbone(keras.Model(images, x), trainable_blocks=blocks)
    assert moved(*train(backbone)) == expected


def test_all_trains_all():
    before, after = train(Backbone(tiny_network(), trainable_blocks="all"))
    assert moved(before, after) == {name.split("/")[-2] for name in before}


@pytest.mark.parametrize(
    "name, blocks, last",
    [
        ("efficientnet_b0", 16, "block7a"),
        ("efficientnet_v2_b0", 21, "block6h"),
        ("efficientnet_lite0", 16, "block7a"),
    ],
)
def test_blocks_of_the_efficientnets_are_found(name, blocks, last):
    backbone = Backbone(name, (32, 32), trainable_blocks=1)
    assert len(backbone.blocks) == blocks and backbone.blocks[-1] == last
    trained = {layer.name for layer in backbone.net.layers if layer.trainable_weights}
    assert trained and {name.split("_")[0] for name in trained} == {last, "top"}


@pytest.mark.parametrize(
    "application, blocks",
    [("ConvNeXtTiny", 18), ("MobileNetV3Small", 11), ("MobileNetV2", 17), ("ResNet50", 16)],
)
def test_blocks_of_other_networks_are_found(application, blocks):
    build = getattr(keras.applications, application)
    network = build(include_top=False, weights=None, input_shape=(64, 64, 3))
    backbone = Backbone(network, trainable_blocks=2)
    assert len(backbone.blocks) == blocks
    first, last = backbone.blocks[-2:]
    names = [layer.name for layer in network.layers]
    start = next(i for i, name in enumerate(names) if name.startswith(first))
    assert any(name.startswith(last) for name in names[start:])
    assert not any(layer.trainable for layer in network.layers[:start] if layer.weights)
    assert all(layer.trainable for layer in network.layers[start:])


def sequence_network() -> keras.Model:
    images = keras.Input((32, 32, 3))
    patches = keras.layers.Conv2D(8, 16, 16)(images)
    return keras.Model(images, keras.layers.Reshape((4, 8))(patches))


def test_network_may_give_a_sequence():
    network = sequence_network()
    backbone = Backbone(network)
    assert backbone.feature_shape == (4, 8)
    np.testing.assert_allclose(
        numpy(backbone(PHOTOS)), numpy(network(PHOTOS.astype("float32"))), rtol=1e-5
    )


def test_network_for_any_size_needs_one():
    build = keras.applications.MobileNetV3Small
    network = build(include_top=False, weights=None, input_shape=(None, None, 3))
    with pytest.raises(ValueError, match="image_size=None"):
        Backbone(network)
    assert Backbone(network, (64, 96)).feature_shape == (6, 576)


@pytest.mark.parametrize("network", [tiny_network, sequence_network])
def test_network_of_ones_own_comes_back_from_json(network):
    backbone = Backbone(
        network(), scale=0.5, offset=(1.0, 2.0, 3.0), trainable_blocks="all", fit="pad"
    )
    config = json.loads(json.dumps(backbone.get_config()))
    copy = Backbone.from_config(config)
    assert copy.preprocessing.scale == 0.5 and list(copy.preprocessing.offset) == [1, 2, 3]
    assert copy.trainable_blocks == "all" and copy.fit == "pad" and copy.get_config() == config
    copy.net.set_weights(backbone.net.get_weights())
    np.testing.assert_allclose(numpy(copy(PHOTOS)), numpy(backbone(PHOTOS)), rtol=1e-5)


def test_named_network_comes_back_from_json():
    backbone = Backbone("efficientnet_lite0", (32, 64), trainable_blocks=3)
    config = json.loads(json.dumps(backbone.get_config()))
    assert config == {
        "network": "efficientnet_lite0",
        "image_size": [32, 64],
        "trainable_blocks": 3,
        "fit": "squash",
    }
    assert Backbone.from_config(config).get_config() == config


def pooled() -> keras.Model:
    images = keras.Input((32, 32, 3))
    return keras.Model(images, keras.layers.GlobalAveragePooling2D()(images), name="pooled")


@pytest.mark.parametrize(
    "arguments, message",
    [
        ({"network": "efficientnet_b9"}, "efficientnet_b0.*network='efficientnet_b9'"),
        ({"network": "efficientnet_b0", "image_size": (13, 13)}, r"image_size=\(13, 13\)"),
        ({"network": "efficientnet_b0", "image_size": 224}, "image_size=224"),
        ({"network": "efficientnet_b0", "image_size": (224, 224, 3)}, r"\(224, 224, 3\)"),
        ({"network": tiny_network, "image_size": (64, 64)}, r"\(32, 32\).*\(64, 64\)"),
        ({"network": tiny_network, "trainable_blocks": 3}, "0 to 2.*trainable_blocks=3"),
        ({"network": tiny_network, "trainable_blocks": -1}, "trainable_blocks=-1"),
        ({"network": tiny_network, "trainable_blocks": "some"}, "trainable_blocks='some'"),
        ({"network": tiny_network, "trainable_blocks": True}, "trainable_blocks=True"),
        ({"network": tiny_network, "fit": "stretch"}, "squash, crop, pad.*fit='stretch'"),
        ({"network": pooled}, r"feature map.*pooled with output shape \(None, 3\)"),
        ({"network": keras.Sequential}, "built Keras model"),
        ({"network": lambda: 7}, "built Keras model.*Received: 7"),
    ],
)
def test_what_cannot_be_a_backbone_is_refused_with_its_reason(arguments, message):
    network = arguments["network"]
    network = network if isinstance(network, str) else network()
    with pytest.raises(ValueError, match=f"(?s){message}"):
        Backbone(**arguments | {"network": network})
