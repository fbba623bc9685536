"""Tests of vision transformers as backbones, and of their weights, against transformers."""

from __future__ import annotations

import json
from dataclasses import replace
from functools import cache

import keras
import numpy as np
import pytest

from effcap.backbones.backbone import Backbone
from effcap.backbones.registry import BACKBONES
from effcap.backbones.vit import VisionTransformer
from effcap.backbones.vit_sizes import BLIP_VARIANTS, VIT_VARIANTS
from effcap.conversion.backbone_weights import load_backbone_weights
from effcap.weights.name_pairs import published_in
from effcap.weights.positions import interpolation_matrix
from effcap.weights.tower_names import find_layer_variable
from effcap.weights.vit_names import hugging_face_blip, hugging_face_vit
from effcap.weights.vit_weights import load_vit
from helpers.captioners import numpy
from helpers.transformers_files import (
    BLIP,
    CONFIGS,
    SPECS,
    STATISTICS,
    VIT,
    published_shapes,
    read_reference,
    salesforce_names,
    write_folder,
    write_torch,
)

MODELS = {VIT: "vit", BLIP: "blip"}
PUBLISHED = {
    "vit-gpt2": ("vit_b16", "encoder", hugging_face_vit, "encoder.encoder.layer", 224),
    "blip-base": (
        "blip_vit_b16",
        "vision_model",
        hugging_face_blip,
        "vision_model.encoder.layers",
        384,
    ),
    "blip-large": (
        "blip_vit_l16",
        "vision_model",
        hugging_face_blip,
        "vision_model.encoder.layers",
        384,
    ),
}
backbones = cache(Backbone)  # to load into


@pytest.fixture(autouse=True)
def tiny_networks(monkeypatch):
    for name, spec in SPECS.items():
        monkeypatch.setitem(BACKBONES, name, spec)


def empty_backbone(network: str) -> Backbone:
    """Returns a backbone whose weights are all zero."""
    backbone = backbones(network)
    for weight in backbone.weights:
        weight.assign(np.zeros(weight.shape))
    return backbone


def weights_of(network: str) -> dict[str, np.ndarray]:
    return read_reference("vit", MODELS[network]).weights


def assert_equals_reference(backbone: Backbone, prefix: str = "") -> None:
    arrays = read_reference("vit", MODELS[backbone.network]).arrays
    images = arrays["wide" if prefix else "images"]
    received, expected = numpy(backbone(images)), arrays[f"{prefix}tokens"]
    np.testing.assert_allclose(received, expected, rtol=0, atol=1e-5 * np.abs(expected).max())


def assert_refused(network, path, message, error=ValueError):
    """Asserts that weights are refused with a message, and that the backbone is unchanged."""
    backbone = empty_backbone(network)
    with pytest.raises(error, match=f"(?s){message}"):
        load_vit(backbone, path)
    assert not any(numpy(weight).any() for weight in backbone.weights)


@pytest.mark.parametrize("network", MODELS)
def test_tokens_equal_transformers(network, tmp_path):
    path = write_folder(tmp_path, weights_of(network), CONFIGS[network], STATISTICS[network])
    backbone = empty_backbone(network)
    message = load_backbone_weights(backbone, str(path))
    assert "assumed" not in message
    assert ("skipped: pooler, unused (2 tensors)" in message) == (network == VIT)
    assert backbone.feature_shape == (17, 16) and backbone.fit == "squash"
    assert_equals_reference(backbone)


@pytest.mark.parametrize("network", MODELS)
def test_positions_are_interpolated_as_in_transformers(network, tmp_path):
    path = write_folder(tmp_path, weights_of(network), CONFIGS[network])
    backbone = Backbone(network, image_size=(32, 64))
    assert "positions interpolated from (4, 4) to (4, 8)" in load_vit(backbone, path)
    assert_equals_reference(backbone, "wide_")


def test_interpolation_repeats_the_ends_without_antialiasing():
    """Bicubic interpolation of 2 values to 4, by hand."""
    values = np.array([0.0, 1.0])
    received = interpolation_matrix(2, 4, antialias=False) @ values

    def kernel(x: float) -> float:
        x, a = abs(x), -0.75
        if x < 1:
            return (a + 2) * x**3 - (a + 3) * x**2 + 1
        return a * (x**3 - 5 * x**2 + 8 * x - 4) if x < 2 else 0.0

    padded = [0, 0, 0, 1, 1, 1]  # at -2 to 3
    expected = [
        sum(value * kernel(at - center) for at, value in zip(range(-2, 4), padded, strict=True))
        for center in (-0.25, 0.25, 0.75, 1.25)
    ]
    np.testing.assert_allclose(received, expected, atol=1e-12)
    np.testing.assert_allclose(interpolation_matrix(5, 5, antialias=False), np.eye(5), atol=1e-12)


def test_weights_of_the_original_blip_are_read(tmp_path):
    """With the rest of the model and the momentum encoder, which are skipped."""
    tower = salesforce_names(weights_of(BLIP))
    momentum = {name.replace("encoder.", "encoder_m.", 1): -x for name, x in tower.items()}
    others = {"text_decoder.cls.predictions.bias": np.zeros(3, np.float32), **momentum}
    checkpoint = {f"model.{name}": x for name, x in {**others, **tower}.items()}
    path = write_torch(tmp_path / "model_base_caption.pth", {**checkpoint, "epoch": np.array(4)})
    backbone = empty_backbone(BLIP)
    message = load_vit(backbone, path)
    assert "the original has the epsilon 1e-06, and the network 1e-05" in message
    assert f"outside visual_encoder.* ({len(tower) + 1} tensors)" in message
    assert "outside model.* (1 tensors)" in message
    assert_equals_reference(backbone)


@pytest.mark.parametrize(
    "network, prefix, others",
    [
        (VIT, "vit.", {"classifier.bias": np.zeros(3, np.float32)}),
        (VIT, "encoder.", {"decoder.transformer.wte.weight": np.zeros((3, 2), np.float32)}),
        (BLIP, "vision_model.", {"text_decoder.cls.predictions.bias": np.zeros(3, np.float32)}),
    ],
)
def test_image_towers_inside_other_models_are_read(network, prefix, others, tmp_path):
    weights = {f"{prefix}{name}": x for name, x in weights_of(network).items()} | others
    backbone = empty_backbone(network)
    message = load_vit(backbone, write_torch(tmp_path / "pytorch_model.bin", weights))
    assert f"outside {prefix}* (1 tensors)" in message
    assert "assumed the activation gelu and the epsilon" in message
    assert_equals_reference(backbone)


@pytest.mark.parametrize(
    "network, section, setting, message",
    [
        (VIT, None, {"hidden_act": "gelu_new"}, 'activation "gelu_new".*has "gelu"'),
        (VIT, "encoder", {"layer_norm_eps": 1e-6}, "epsilon 1e-06.*has 1e-12"),
        (BLIP, "vision_config", {"num_attention_heads": 8}, "num_heads 8.*has 4"),
        (BLIP, "vision_config", {"layer_norm_eps": 1e-6}, "epsilon 1e-06.*has 1e-05"),
    ],
)
def test_recorded_settings_must_be_the_networks(network, section, setting, message, tmp_path):
    config = CONFIGS[network]
    changed = config.get("vision_config", config) | setting
    path = write_folder(tmp_path, weights_of(network), {section: changed} if section else changed)
    assert_refused(network, path, message)


def test_recorded_preprocessing_must_be_the_networks(tmp_path):
    path = write_folder(tmp_path, weights_of(VIT), CONFIGS[VIT], STATISTICS[BLIP])
    assert_refused(VIT, path, r"mean \[0.48.*has \[0.5, 0.5, 0.5\]")


def test_weights_of_another_tower_are_refused(tmp_path):
    vit = write_folder(tmp_path / "vit", weights_of(VIT), CONFIGS[VIT])
    assert_refused(BLIP, vit, "Expected weights of BLIP.*Received: .*whose 40 tensors")
    blip = write_folder(tmp_path / "blip", weights_of(BLIP), CONFIGS[BLIP])
    assert_refused(VIT, blip, "Expected weights of a ViT, with a tensor embeddings.cls_token")
    assert_refused(VIT, tmp_path, "No weights of a ViT in", FileNotFoundError)


def test_weights_that_do_not_fit_are_refused(tmp_path):
    weights = weights_of(VIT)
    bias = "encoder.layer.1.attention.attention.key.bias"
    wrong = {name: x for name, x in weights.items() if name != bias}
    wrong["embeddings.cls_token"] = np.zeros((1, 2, 16), np.float16)
    wrong["embeddings.position_embeddings"] = np.zeros((1, 18, 16), np.float16)
    wrong["extra"] = np.zeros(3, np.float16)
    path = write_torch(tmp_path / "vit.bin", wrong)
    assert_refused(VIT, path, rf"missing: {bias} \(16,\).*unexpected: extra \(3,\)")
    assert_refused(VIT, path, r"embeddings.cls_token \(1, 2, 16\) for \(1, 1, 16\)")
    assert_refused(VIT, path, r"position_embeddings \(1, 18, 16\) for \(1, 17, 16\)")
    infinite = weights | {bias: np.full(16, np.inf, np.float16)}
    assert_refused(VIT, write_torch(tmp_path / "inf.bin", infinite), rf"{bias} \(not finite\)")


@pytest.mark.parametrize("weights", (None, "imagenet"))
def test_vit_has_no_weights_by_default(weights):
    with pytest.raises(FileNotFoundError, match="of tiny_blip are not downloaded"):
        load_backbone_weights(empty_backbone(BLIP), weights)


@pytest.mark.parametrize("model", PUBLISHED)
def test_published_tensors_of_the_tower_map_without_remainder(model):
    network, prefix, name_pairs, module, side = PUBLISHED[model]
    shapes, num_layers = published_shapes(model)
    variant = (VIT_VARIANTS | BLIP_VARIANTS)[network]
    assert num_layers[module] == variant.num_layers
    net = VisionTransformer(replace(variant, num_layers=1), (side, side))
    pairs = published_in(prefix, name_pairs(net))
    received = {
        name: pair.shape(find_layer_variable(net, pair)) for pair in pairs for name in pair.theirs
    }
    pooler = f"{prefix}.pooler."
    assert received == {
        name: shape
        for name, shape in shapes.items()
        if name.startswith(f"{prefix}.") and not name.startswith(pooler)
    }
    assert len(net.weights) == len(pairs)
    keras.backend.clear_session()


def test_a_network_survives_get_config_and_saving_as_a_keras_model(tmp_path):
    backbone = Backbone(BLIP, trainable_blocks=1)
    config = json.loads(json.dumps(backbone.get_config()))
    assert Backbone.from_config(config).get_config() == config
    trained = {layer.name for layer in backbone.net.layers if layer.trainable_weights}
    assert trained == {"block_1", "ln_post"}
    backbone.net.save(tmp_path / "network.keras")
    network = keras.saving.load_model(tmp_path / "network.keras")
    assert network.get_layer("block_0").epsilon == network.get_layer("block_0").ln_1.epsilon == 1e-5
    photos = np.random.default_rng(0).integers(0, 256, (2, *backbone.image_size, 3), np.uint8)
    pixels = backbone.preprocessing(keras.ops.convert_to_tensor(photos, "float32"))
    np.testing.assert_allclose(numpy(network(pixels)), numpy(backbone.net(pixels)), atol=1e-5)
