"""Tests of effcap.weights.clip, against transformers and open_clip."""

from __future__ import annotations

import json
from functools import cache

import numpy as np
import pytest

from effcap.backbones.backbone import Backbone
from effcap.backbones.registry import BACKBONES
from effcap.conversion.backbone_weights import load_backbone_weights
from effcap.weights.clip import load_clip
from effcap.weights.positions import interpolation_matrix, resize_positions
from helpers.captioners import numpy
from helpers.clip_files import (
    DATA,
    HUGGING_FACE,
    OPEN_CLIP,
    RESNET,
    SPECS,
    VIT,
    VIT_GELU,
    read_reference,
    write_weights,
)

reference = cache(read_reference)
backbones = cache(Backbone)  # to load into; the networks take long to build
FORMATS = [
    ("hugging_face", "hugging_face"),
    ("hugging_face", "hugging_face_bin"),
    ("script", "open_clip"),
    ("script", "checkpoint"),
    ("resnet", "state_dict"),
    ("resnet", "script"),
    ("resnet", "safetensors"),
]


@pytest.fixture(autouse=True)
def tiny_networks(monkeypatch):
    for name, spec in SPECS.items():
        monkeypatch.setitem(BACKBONES, name, spec)


def empty_backbone(network: str, output: str = "tokens") -> Backbone:
    """Returns a backbone whose weights are all zero."""
    backbone = backbones(network, output=output)
    for weight in backbone.weights:
        weight.assign(np.zeros(weight.shape))
    return backbone


def assert_equals_reference(backbone: Backbone, name: str) -> None:
    arrays = reference(name).arrays
    expected = arrays[backbone.output_kind].reshape((2, *backbone.feature_shape))
    received = numpy(backbone(arrays["images"]))
    np.testing.assert_allclose(received, expected, rtol=0, atol=1e-5 * np.abs(expected).max())


def assert_refused(weights, message, form="state_dict", network=VIT, folder=None, output="tokens"):
    """Asserts that weights are refused with a message, and that the backbone is unchanged."""
    backbone = empty_backbone(network, output)
    with pytest.raises(ValueError, match=f"(?s){message}"):
        load_clip(backbone, write_weights(form, folder, weights))
    assert not any(numpy(weight).any() for weight in backbone.weights)


@pytest.mark.parametrize("name, form", FORMATS)
def test_image_vectors_equal_the_published_implementations(name, form, tmp_path):
    backbone = empty_backbone(reference(name).network, "embedding")
    path = write_weights(form, tmp_path, reference(name).weights)
    load_backbone_weights(backbone, str(path))
    assert backbone.feature_shape == (1, 24)
    assert_equals_reference(backbone, name)


def test_a_file_of_torch_jit_save_equals_the_model_that_was_saved():
    backbone = empty_backbone(VIT, "embedding")
    message = load_backbone_weights(backbone, str(DATA / "clip_script.pt"))
    assert "skipped: text tower (19 tensors)" in message
    assert "assumed the activation quick_gelu" in message
    assert_equals_reference(backbone, "script")


@pytest.mark.parametrize("name, form", [FORMATS[0], FORMATS[-1]])
def test_tokens_equal_the_published_implementations(name, form, tmp_path):
    backbone = empty_backbone(reference(name).network)
    message = load_clip(backbone, write_weights(form, tmp_path, reference(name).weights))
    assert "unused for tokens" in message and "assumed" not in message
    assert_equals_reference(backbone, name)


def test_a_network_with_gelu_equals_the_published_implementation(tmp_path):
    backbone = empty_backbone(VIT_GELU, "embedding")
    path = write_weights("hugging_face", tmp_path, reference("hugging_face").weights)
    with pytest.raises(ValueError, match='records activation "quick_gelu".*has "gelu". Networks'):
        load_clip(backbone, path)
    vision = HUGGING_FACE["vision_config"] | {"hidden_act": "gelu"}
    (tmp_path / "config.json").write_text(json.dumps({"vision_config": vision}))
    load_clip(backbone, path)
    arrays = reference("hugging_face").arrays
    received, expected = numpy(backbone(arrays["images"]))[:, 0], arrays["embedding_gelu"]
    np.testing.assert_allclose(received, expected, rtol=0, atol=1e-5 * np.abs(expected).max())
    assert np.abs(expected - arrays["embedding"]).max() > 0.01


def test_files_of_the_image_tower_alone_are_read(tmp_path):
    weights = reference("hugging_face").weights
    projected = {name: x for name, x in weights.items() if name.startswith("vis")}
    bare = {name: x for name, x in projected.items() if name.startswith("vision_model.")}
    for contents, output in ((projected, "embedding"), (bare, "tokens")):
        backbone = empty_backbone(VIT, output)
        path = write_weights("hugging_face", tmp_path, contents)
        (tmp_path / "config.json").write_text(json.dumps(HUGGING_FACE["vision_config"]))
        assert "skipped" not in load_clip(backbone, path)
        assert_equals_reference(backbone, "hugging_face")
    assert_refused(bare, "missing: visual_projection.weight", "safetensors", folder=tmp_path / "x",
                   output="embedding")  # fmt: skip


def test_buffers_are_skipped_by_name(tmp_path):
    ids = {"vision_model.embeddings.position_ids": np.arange(17)[None]}
    backbone = empty_backbone(VIT)
    path = write_weights("hugging_face", tmp_path, reference("hugging_face").weights | ids)
    assert "position numbers (1 tensors)" in load_clip(backbone, path)
    sizes = {name: np.array(77) for name in ("input_resolution", "context_length", "vocab_size")}
    path = write_weights("script", tmp_path / "script", reference("script").weights | sizes)
    assert "sizes (3 tensors)" in load_clip(backbone, path)


def renamed(weights: dict, old: str, new: str) -> dict:
    assert old in weights
    return {new if name == old else name: x for name, x in weights.items()}


KEY = "visual.transformer.resblocks.1.attn.in_proj_weight"
DAMAGES = {
    "renamed": (
        lambda w: renamed(w, KEY, f"{KEY}s"),
        rf"missing: {KEY} \(96, 32\); unexpected: {KEY}s \(96, 32\)",
    ),
    "missing": (lambda w: {k: x for k, x in w.items() if k != KEY}, f"missing: {KEY}"),
    "extra block": (
        lambda w: w | {"visual.transformer.resblocks.2.ln_1.bias": np.zeros(32, np.float32)},
        r"unexpected: visual.transformer.resblocks.2.ln_1.bias \(32,\)",
    ),
    "unknown text tensor": (
        lambda w: w | {"text_tower.weight": np.zeros(3, np.float32)},
        r"unexpected: text_tower.weight \(3,\)",
    ),
    "transposed": (
        lambda w: w | {KEY: np.ascontiguousarray(w[KEY].T)},
        rf"of another shape: {KEY} \(32, 96\) for \(96, 32\)",
    ),
    "positions": (
        lambda w: w | {"visual.positional_embedding": np.zeros((16, 32), np.float32)},
        r"of another shape: visual.positional_embedding \(16, 32\) for \(17, 32\)",
    ),
    "integers": (
        lambda w: w | {"visual.ln_pre.bias": np.zeros(32, np.int64)},
        "not floating-point: visual.ln_pre.bias int64",
    ),
    "not finite": (
        lambda w: w | {"visual.ln_pre.bias": np.full(32, np.nan, np.float32)},
        r"impossible values: visual.ln_pre.bias \(not finite\)",
    ),
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_tensors_that_do_not_fit_are_named_and_nothing_is_loaded(damage, tmp_path):
    change, message = DAMAGES[damage]
    assert_refused(change(reference("script").weights), message, folder=tmp_path)


def test_negative_variances_are_refused(tmp_path):
    name = "visual.layer2.0.downsample.1.running_var"
    weights = reference("resnet").weights | {name: np.full(32, -1, np.float32)}
    message = rf"{name} \(negative variances\)"
    assert_refused(weights, message, network=RESNET, folder=tmp_path)


def test_weights_of_another_tower_are_refused(tmp_path):
    weights = reference("resnet").weights
    assert_refused(weights, "residual network.*clip_tiny_vit is not", folder=tmp_path)
    weights = reference("script").weights
    message = "vision transformer.*clip_tiny_resnet is not"
    assert_refused(weights, message, network=RESNET, folder=tmp_path / "vit")
    text = {name: x for name, x in weights.items() if not name.startswith("visual.")}
    message = "Expected weights of CLIP.*visual.class_embedding.*Received: .*whose 19 tensors"
    assert_refused(text, message, folder=tmp_path / "text")


def test_truncated_files_are_refused(tmp_path):
    for name, form in FORMATS[:1] + FORMATS[4:6]:
        path = write_weights(form, tmp_path / f"{name}_{form}", reference(name).weights)
        file = path / "model.safetensors" if path.is_dir() else path
        file.write_bytes(file.read_bytes()[:-100])
        with pytest.raises(ValueError, match="truncated"):
            load_clip(empty_backbone(reference(name).network), path)


@pytest.mark.parametrize(
    "form, section, setting, message",
    [
        ("hugging_face", "vision_config", {"hidden_act": "gelu"}, '"gelu".*has "quick_gelu"'),
        ("hugging_face", "vision_config", {"num_attention_heads": 8}, "num_heads 8.*has 4"),
        ("hugging_face", "vision_config", {"layer_norm_eps": 1e-6}, "epsilon 1e-06.*has 1e-05"),
        ("open_clip", "model_cfg", {"quick_gelu": False}, '"gelu".*has "quick_gelu"'),
        ("open_clip", "model_cfg", {"vision_cfg": {}}, "head_dim 64.*has 8"),
        ("open_clip", "preprocess_cfg", {"mean": [0.5, 0.5, 0.5]}, "mean"),
    ],
)
def test_recorded_settings_must_be_the_networks(form, section, setting, message, tmp_path):
    name = "hugging_face" if form == "hugging_face" else "script"
    path = write_weights(form, tmp_path, reference(name).weights)
    config = dict(HUGGING_FACE if form == "hugging_face" else OPEN_CLIP)
    config[section] = config[section] | setting
    file = "config.json" if form == "hugging_face" else "open_clip_config.json"
    (tmp_path / file).write_text(json.dumps(config))
    with pytest.raises(ValueError, match=message):
        load_clip(empty_backbone(VIT), path)


def test_the_preprocessing_of_hugging_face_must_be_clips(tmp_path):
    path = write_weights("hugging_face", tmp_path, reference("hugging_face").weights)
    (tmp_path / "preprocessor_config.json").write_text('{"image_std": [0.5, 0.5, 0.5]}')
    with pytest.raises(ValueError, match=r"records std \[0.5, 0.5, 0.5\]"):
        load_clip(empty_backbone(VIT), path)


def test_positions_are_interpolated_for_another_image_size():
    name, weights = "visual.positional_embedding", reference("script").weights
    table = weights[name].astype(np.float32)
    expected = reference("script").arrays["resized"]  # by open_clip
    np.testing.assert_allclose(resize_positions(table, (6, 3)), expected, rtol=0, atol=1e-6)
    backbone = Backbone(VIT, image_size=(48, 32))
    message = load_clip(backbone, DATA / "clip_script.pt")
    assert "positions interpolated from (4, 4) to (6, 4)" in message
    received = numpy(backbone.net.get_layer("embeddings").position_embedding.embeddings)
    np.testing.assert_allclose(received, resize_positions(table, (6, 4)), rtol=0, atol=1e-6)


def test_attention_pooling_is_interpolated_for_another_image_size(tmp_path):
    backbone = Backbone(RESNET, image_size=(96, 64), output="embedding")
    path = write_weights("state_dict", tmp_path, reference("resnet").weights)
    assert "from (2, 2) to (3, 2)" in load_clip(backbone, path)
    assert backbone(np.zeros((1, 96, 64, 3))).shape == (1, 1, 24)


def test_interpolation_to_the_same_grid_changes_nothing():
    table = np.random.default_rng(0).normal(size=(26, 3)).astype(np.float32)
    np.testing.assert_allclose(resize_positions(table, (5, 5)), table, atol=1e-6)
    np.testing.assert_allclose(interpolation_matrix(7, 12).sum(axis=1), 1)
    with pytest.raises(ValueError, match="Received: 18"):
        resize_positions(table[:18], (5, 5))


@pytest.mark.parametrize("weights", (None, "imagenet"))
def test_clip_has_no_weights_by_default(weights):
    with pytest.raises(FileNotFoundError, match="Pass their file or folder with --backbone-w"):
        load_backbone_weights(empty_backbone(VIT), weights)
    assert load_backbone_weights(empty_backbone(VIT), "none") is None


def test_a_folder_without_weights_is_an_error(tmp_path):
    with pytest.raises(FileNotFoundError, match="none of open_clip_model.safetensors"):
        load_clip(empty_backbone(VIT), tmp_path)
    with pytest.raises(FileNotFoundError, match="nowhere"):
        load_clip(empty_backbone(VIT), tmp_path / "nowhere")
