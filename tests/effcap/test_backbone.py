"""Tests of effcap.backbones.backbone: sizes, freezing, and networks of the user's own."""

from __future__ import annotations

import json

import keras
import numpy as np
import pytest

from effcap.backbones.backbone import Backbone
from helpers.captioners import numpy, tiny_network

layers = keras.layers
PHOTOS = np.random.default_rng(0).integers(0, 256, (2, 32, 32, 3), dtype=np.uint8)


def block_network() -> keras.Model:
    """Returns a network with a stem, two residual blocks and a head, all with weights."""
    images = keras.Input((32, 32, 3))
    x = layers.Conv2D(6, 3, 4, "same", name="stem")(images)  # (B,8,8,6)
    for block in ("first", "second"):
        branch = layers.Conv2D(6, 3, padding="same", name=f"{block}_conv")(x)  # (B,8,8,6)
        branch = layers.BatchNormalization(name=f"{block}_norm")(branch)
        x = layers.Add()([x, layers.Activation("swish")(branch)])
    x = layers.Conv2D(12, 3, 2, "same", name="head")(x)  # (B,4,4,12)
    return keras.Model(images, x, name="block_network")


def train(backbone: Backbone, steps: int = 2) -> tuple[dict, dict]:
    """Trains a backbone; returns all its weights before and after, by path."""
    model = keras.Sequential([backbone, keras.layers.Dense(1)])
    model.compile(keras.optimizers.SGD(0.1), "mse", jit_compile=keras.backend.backend() == "jax")
    model.build((None, *backbone.image_size, 3))
    before = {weight.path: numpy(weight) + 0 for weight in backbone.net.weights}
    targets = np.ones((2, backbone.feature_shape[0], 1), np.float32)
    for _ in range(steps):
        model.train_on_batch(PHOTOS, targets)
    return before, {weight.path: numpy(weight) for weight in backbone.net.weights}


def changed_layers(before: dict, after: dict) -> set[str]:
    """Returns the names of the layers whose weights changed."""
    return {p.split("/")[-2] for p in before if not np.array_equal(before[p], after[p])}


def test_features_are_the_networks_output_for_preprocessed_pixels():
    network = tiny_network()
    backbone = Backbone(network, scale=[0.1, 0.2, 0.3], offset=[1, 2, 3])
    expected = numpy(network(PHOTOS * np.array([0.1, 0.2, 0.3], "float32") + [1, 2, 3]))
    received = numpy(backbone(PHOTOS))
    assert backbone.feature_shape == (16, 12) and received.shape == (2, 16, 12)
    np.testing.assert_allclose(received, expected.reshape(2, 16, 12), rtol=1e-5, atol=1e-4)


def test_a_frozen_network_keeps_its_batch_statistics_too():
    backbone = Backbone(block_network(), trainable_blocks=0)
    assert backbone.trainable_weights == [] and len(backbone.blocks) == 2
    assert changed_layers(*train(backbone)) == set()


def test_a_frozen_network_applies_no_dropout_in_training():
    images = keras.Input((32, 32, 3))
    x = layers.Dropout(0.5)(layers.Conv2D(4, 3, 4)(images))
    network = keras.Model(images, x)
    frozen, trained = Backbone(network), Backbone(network, trainable_blocks="all")
    assert np.abs(numpy(trained(PHOTOS, training=True) - trained(PHOTOS))).max() > 0
    network.trainable = False
    np.testing.assert_array_equal(numpy(frozen(PHOTOS, training=True)), numpy(frozen(PHOTOS)))


@pytest.mark.parametrize(
    "blocks, expected",
    [
        (1, {"second_conv", "second_norm", "head"}),
        (2, {"first_conv", "first_norm", "second_conv", "second_norm", "head"}),
        ("all", {"stem", "first_conv", "first_norm", "second_conv", "second_norm", "head"}),
    ],
)
def test_exactly_the_last_blocks_and_the_head_are_trained(blocks, expected):
    assert changed_layers(*train(Backbone(block_network(), trainable_blocks=blocks))) == expected


def test_the_last_block_of_a_named_network_is_trained():
    backbone = Backbone("efficientnet_lite0", (32, 32), trainable_blocks=1)
    assert len(backbone.blocks) == 16
    trained = {layer.name.split("_")[0] for layer in backbone.net.layers if layer.trainable_weights}
    assert trained == {"block7a", "top"}


def test_a_network_without_blocks_is_trained_as_a_whole():
    assert len(Backbone(sequence_network(), trainable_blocks="all").trainable_weights) == 2
    with pytest.raises(ValueError, match='no blocks.*use trainable_blocks="all".*Received: .*=1'):
        Backbone(sequence_network(), trainable_blocks=1)


def sequence_network() -> keras.Model:
    """Returns a network whose output is a sequence (B, 4, 8)."""
    images = keras.Input((32, 32, 3))
    patches = layers.Conv2D(8, 16, 16)(images)
    return keras.Model(images, layers.Reshape((4, 8))(patches))


def test_a_networks_output_may_be_a_sequence():
    network = sequence_network()
    backbone = Backbone(network)
    assert backbone.feature_shape == (4, 8)
    np.testing.assert_allclose(
        numpy(backbone(PHOTOS)), numpy(network(PHOTOS.astype("float32"))), rtol=1e-5
    )


def test_a_network_for_any_size_requires_image_size():
    build = keras.applications.MobileNetV3Small
    network = build(include_top=False, weights=None, input_shape=(None, None, 3))
    with pytest.raises(ValueError, match="image_size=None"):
        Backbone(network)
    assert Backbone(network, (64, 96)).feature_shape == (6, 576)


@pytest.mark.parametrize("network", [block_network, sequence_network])
def test_a_keras_model_survives_get_config_and_json(network):
    backbone = Backbone(
        network(), scale=0.5, offset=(1.0, 2.0, 3.0), trainable_blocks="all", fit="pad"
    )
    config = json.loads(json.dumps(backbone.get_config()))
    copy = Backbone.from_config(config)
    assert copy.preprocessing.scale == 0.5 and list(copy.preprocessing.offset) == [1, 2, 3]
    assert copy.trainable_blocks == "all" and copy.fit == "pad" and copy.get_config() == config
    copy.net.set_weights(backbone.net.get_weights())
    np.testing.assert_allclose(numpy(copy(PHOTOS)), numpy(backbone(PHOTOS)), rtol=1e-5)


def test_a_named_network_survives_get_config_and_json():
    backbone = Backbone("efficientnet_lite0", (32, 64), trainable_blocks=3)
    config = json.loads(json.dumps(backbone.get_config()))
    assert config == {
        "network": "efficientnet_lite0",
        "image_size": [32, 64],
        "trainable_blocks": 3,
        "fit": "squash",
    }
    assert Backbone.from_config(config).get_config() == config


def test_sizes_and_preprocessing_of_a_named_network_can_be_changed():
    sizes = {"hidden_dim": 12, "num_layers": 2, "num_heads": 3, "patch_size": 8, "qkv_bias": False}
    changes = {"scale": [0.5, 1.0, 2.0], "offset": -1.0, "resample": "bilinear"}
    backbone = Backbone("vit_b16", (16, 24), sizes=sizes, **changes)
    assert backbone.feature_shape == (7, 12)
    config = json.loads(json.dumps(backbone.get_config()))
    assert config["sizes"] == sizes and config["resample"] == "bilinear"
    copy = Backbone.from_config(config)
    assert copy.get_config() == config
    copy.net.set_weights(backbone.net.get_weights())
    images = PHOTOS[:, :16, :24]  # (B,16,24,3)
    np.testing.assert_allclose(numpy(copy(images)), numpy(backbone(images)), rtol=1e-5)
    own = Backbone("vit_b16", (16, 24), sizes=sizes)
    own.net.set_weights(backbone.net.get_weights())
    assert "scale" not in own.get_config()
    assert np.abs(numpy(own(images)) - numpy(backbone(images))).max() > 0.1


def pooled() -> keras.Model:
    """Returns a network whose output is neither a feature map nor a sequence."""
    images = keras.Input((32, 32, 3))
    return keras.Model(images, layers.GlobalAveragePooling2D()(images), name="pooled")


@pytest.mark.parametrize(
    "arguments, message",
    [
        ({"network": "efficientnet_b9"}, "efficientnet_b0.*network='efficientnet_b9'"),
        ({"network": "efficientnet_b0", "image_size": (13, 13)}, r"image_size=\(13, 13\)"),
        ({"network": "efficientnet_b0", "image_size": 224}, "image_size=224"),
        ({"network": "efficientnet_b0", "image_size": (224, 224, 3)}, r"\(224, 224, 3\)"),
        ({"network": tiny_network, "image_size": (64, 64)}, r"\(32, 32\).*\(64, 64\)"),
        ({"network": block_network, "trainable_blocks": 3}, "0 to 2.*trainable_blocks=3"),
        ({"network": block_network, "trainable_blocks": -1}, "trainable_blocks=-1"),
        ({"network": block_network, "trainable_blocks": "some"}, "trainable_blocks='some'"),
        ({"network": block_network, "trainable_blocks": True}, "trainable_blocks=True"),
        ({"network": tiny_network, "fit": "stretch"}, "squash, crop, pad.*fit='stretch'"),
        ({"network": tiny_network, "resample": "cubic"}, "bilinear.*resample='cubic'"),
        ({"network": tiny_network, "sizes": {"num_layers": 2}}, "own sizes.*num_layers"),
        ({"network": "efficientnet_b0", "sizes": {"num_layers": 2}}, "Only vit_b16.*num_layers"),
        ({"network": "vit_b16", "sizes": {"layers": 2}}, "hidden_dim.*Received: layers"),
        ({"network": "vit_b16", "sizes": {"activation": "elu"}}, "gelu_new.*activation='elu'"),
        ({"network": pooled}, r"feature map.*pooled with output shape \(None, 3\)"),
        ({"network": keras.Sequential}, "built Keras model"),
        ({"network": lambda: 7}, "built Keras model.*Received: 7"),
    ],
)
def test_bad_arguments_are_an_error_with_the_reason(arguments, message):
    network = arguments["network"]
    network = network if isinstance(network, str) else network()
    with pytest.raises(ValueError, match=f"(?s){message}"):
        Backbone(**arguments | {"network": network})
