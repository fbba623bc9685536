"""Tests of CLIP's image towers as backbones: outputs, sizes, freezing and saving."""

from __future__ import annotations

import json

import keras
import numpy as np
import pytest

from effcap.backbones.backbone import Backbone
from effcap.backbones.registry import BACKBONES, CLIP_MEAN, CLIP_STDDEV
from effcap.captioner import Captioner
from effcap.images import load_photo
from effcap.samplers import Greedy
from helpers.captioners import example_batch, numpy, randomize, tiny_hparams
from helpers.clip_files import RESNET, SPECS, VIT

GREEDY = Greedy(max_new_tokens=5)
# Parameters of the image towers that OpenAI published, without batch statistics; blocks; positions.
PUBLISHED = {
    "clip_vit_b32": (87_849_216, 12, (50, 768), (1, 512)),
    "clip_vit_b16": (86_192_640, 12, (197, 768), (1, 512)),
    "clip_rn50x4": (87_137_080, 26, (81, 2560), (1, 640)),
}


@pytest.fixture(autouse=True)
def tiny_networks(monkeypatch):
    for name, spec in SPECS.items():
        monkeypatch.setitem(BACKBONES, name, spec)


@pytest.mark.slow
@pytest.mark.parametrize("name", PUBLISHED)
def test_networks_have_the_published_sizes(name):
    parameters, num_blocks, tokens, embedding = PUBLISHED[name]
    backbone = Backbone(name, output="embedding", trainable_blocks="all")
    sizes = [int(np.prod(weight.shape)) for weight in backbone.trainable_weights]
    assert sum(sizes) == parameters
    assert len(backbone.blocks) == num_blocks
    assert backbone.feature_shape == embedding
    assert Backbone(name).feature_shape == tokens
    keras.backend.clear_session()


@pytest.mark.parametrize("name", (VIT, RESNET))
def test_pixels_are_standardized_with_clips_statistics(name):
    backbone = Backbone(name)
    pixels = np.random.default_rng(0).integers(0, 256, (1, 4, 4, 3))
    expected = (pixels / 255 - CLIP_MEAN) / CLIP_STDDEV
    received = numpy(backbone.preprocessing(keras.ops.convert_to_tensor(pixels, "float32")))
    np.testing.assert_allclose(received, expected, atol=1e-5)


def test_photos_are_cropped_by_default():
    assert Backbone(VIT).fit == "crop"
    assert Backbone(VIT, fit="squash").fit == "squash"


@pytest.mark.parametrize(
    "arguments, message",
    [
        ({"network": VIT, "output": "pooled"}, "tokens, embedding for clip.*output='pooled'"),
        ({"network": "efficientnet_lite0", "output": "embedding"}, "in tokens for efficientnet"),
        ({"network": VIT, "image_size": (36, 32)}, r"multiples of 8 .*image_size=\(36, 32\)"),
        ({"network": RESNET, "image_size": (64, 80)}, r"multiples of 32 .*\(64, 80\)"),
        ({"network": VIT, "trainable_blocks": 3}, "0 to 2.*trainable_blocks=3"),
    ],
)
def test_bad_arguments_are_an_error_with_the_reason(arguments, message):
    with pytest.raises(ValueError, match=message):
        Backbone(**arguments)


def test_a_keras_model_has_only_one_output():
    with pytest.raises(ValueError, match="in tokens for a Keras model"):
        Backbone(Backbone(VIT).net, output="embedding")


@pytest.mark.parametrize(
    "name, output, num_blocks, trained",
    [
        (VIT, "tokens", 1, {"block_1", "ln_post"}),
        (VIT, "embedding", 1, {"block_1", "ln_post", "projection"}),
        (VIT, "tokens", 2, {"block_0", "block_1", "ln_post"}),
        (RESNET, "embedding", 1, {"layer4_0", "attnpool"}),
        (RESNET, "tokens", 3, {"layer2_1", "layer3_0", "layer4_0"}),
    ],
)
def test_the_last_blocks_and_the_head_are_trained(name, output, num_blocks, trained):
    backbone = Backbone(name, output=output, trainable_blocks=num_blocks)
    layers = {layer.name for layer in backbone.net.layers if layer.trainable_weights}
    assert {"_".join(x.split("_")[:2]) if x[:5] != "block" else x for x in layers} == trained


def test_only_trained_blocks_update_their_batch_statistics():
    backbone = Backbone(RESNET, trainable_blocks=1)
    norms = [x for x in backbone.net.layers if isinstance(x, keras.layers.BatchNormalization)]
    before = [numpy(norm.moving_mean) + 0 for norm in norms]
    backbone(np.random.default_rng(0).integers(0, 256, (2, 64, 64, 3)), training=True)
    changed = [
        norm.name
        for norm, mean in zip(norms, before, strict=True)
        if (numpy(norm.moving_mean) != mean).any()
    ]
    assert changed and all(name.startswith("layer4_0") for name in changed)


@pytest.mark.parametrize(
    "name, output",
    [(VIT, "tokens"), pytest.param(RESNET, "embedding", marks=pytest.mark.slow)],
)
def test_a_network_survives_get_config_and_saving_as_a_keras_model(name, output, tmp_path):
    backbone = Backbone(name, output=output, trainable_blocks=1, fit="pad")
    config = json.loads(json.dumps(backbone.get_config()))
    copy = Backbone.from_config(config)
    assert copy.get_config() == config and copy.feature_shape == backbone.feature_shape
    backbone.net.save(tmp_path / "network.keras")
    network = keras.saving.load_model(tmp_path / "network.keras")
    photos = np.random.default_rng(0).integers(0, 256, (2, *backbone.image_size, 3), np.uint8)
    pixels = backbone.preprocessing(keras.ops.convert_to_tensor(photos, "float32"))
    np.testing.assert_allclose(numpy(network(pixels)), numpy(backbone.net(pixels)), atol=1e-5)


@pytest.mark.slow
@pytest.mark.parametrize("output", ["tokens", "embedding"])
def test_a_captioner_survives_its_preset_and_its_keras_file(output, tokenizer, tmp_path):
    hparams = tiny_hparams()
    hparams["encoder"]["backbone"] = {"network": VIT, "output": output}
    captioner = randomize(Captioner.from_hparams(hparams, tokenizer))
    inputs, *_ = example_batch(captioner, rows=2, key="images")
    expected = numpy(captioner(inputs))
    assert captioner.encoder.memory_shapes == [(None, 17 if output == "tokens" else 1, 16)]
    captioner.save_to_preset(tmp_path / "preset")
    captioner.save(tmp_path / "captioner.keras")
    wide = np.random.default_rng(0).integers(0, 256, (40, 120, 3), np.uint8)
    cropped = {"images": load_photo(wide, (32, 32), "crop")[None]}
    score = captioner.generate_batch(cropped, GREEDY)[0][0].score
    for copy in (
        Captioner.from_preset(tmp_path / "preset"),
        keras.saving.load_model(tmp_path / "captioner.keras"),
    ):
        np.testing.assert_allclose(numpy(copy(inputs)), expected, rtol=0, atol=1e-5)
        assert copy.hparams()["encoder"]["backbone"] == captioner.encoder.backbone.get_config()
    assert copy.generate(wide, GREEDY, details=True)[0].score == pytest.approx(score, abs=1e-5)
