"""Tests of `effcap convert` with files of X-VLM and Swin, and of the presets that it writes."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace

import keras
import numpy as np
import pytest

from effcap.backbones.backbone import Backbone
from effcap.backbones.registry import BACKBONES, BackboneSpec, Preprocessing
from effcap.backbones.swin import SwinTransformer
from effcap.captioner import Captioner
from effcap.conversion.backbone_preset import copy_preset_backbone, load_backbone, save_backbone
from effcap.conversion.backbone_weights import load_backbone_weights
from effcap.samplers import Greedy
from effcap.tools.cli import main
from helpers.captioners import numpy, tiny_hparams, tiny_network
from helpers.cli_errors import fails
from helpers.data_maker import make_data, make_variant
from helpers.swin_files import reference, write_swin, write_xvlm
from helpers.torch_writer import checkpoint


@pytest.fixture(scope="module")
def weights() -> dict[str, np.ndarray]:
    return reference("timm")["weights"]


@pytest.fixture(scope="module")
def file(tmp_path_factory, weights) -> Path:
    """A file of X-VLM with a tiny Swin."""
    return write_xvlm(tmp_path_factory.mktemp("xvlm") / "tiny.th", weights)


@pytest.fixture(scope="module")
def preset(file) -> Path:
    """Its preset."""
    folder = file.parent / "preset"
    assert main(["convert", str(file), str(folder)]) == 0
    return folder


@pytest.mark.parametrize(
    ("write", "positions", "dtype"),
    [
        (write_xvlm, 50, "float32"),
        pytest.param(write_swin, 49, "float16", marks=pytest.mark.slow),
    ],
)
def test_a_file_becomes_a_preset_of_its_backbone(
    write, positions, dtype, weights, tmp_path, capsys
):
    path = write(tmp_path / "tiny.th", weights)
    folder = tmp_path / "preset"
    assert main(["convert", str(path), str(folder), "--dtype", dtype]) == 0
    lines = capsys.readouterr().err.splitlines()
    assert lines[0] == f"0.0 M parameters from {path}"
    assert lines[1].startswith("skipped: attn_mask (1 tensor), ")
    assert lines[2] == f"swin for 56x56 pixels: {positions} positions of width 16"
    assert lines[3] == f"preset: {folder} ({dtype})" and len(lines) == 5
    assert lines[4] == f"next: effcap train csv --model opg-mlp --backbone-weights {folder} ..."
    record = json.loads((folder / "training.json").read_text())
    assert record["system"] == ("xvlm" if write is write_xvlm else "swin")
    assert record["skipped"]["attn_mask"] == 1 and record["source"] == str(path)
    backbone = load_backbone(folder)
    assert backbone.image_size == (56, 56) and backbone.feature_shape == (positions, 16)
    received = numpy(backbone.net.get_layer("stage1_block0").attention.qkv.kernel)
    expected = weights["layers.1.blocks.0.attn.qkv.weight"].T
    np.testing.assert_allclose(received, expected, atol=0 if dtype == "float32" else 2e-3)


@pytest.mark.slow
def test_training_starts_from_the_preset_of_a_backbone(preset, tmp_path, capsys):
    """The variant takes the network of the preset."""
    data = make_data(tmp_path / "data")
    variant = make_variant(tmp_path / "variant.json")
    command = [
        *("train", "csv", "--csv", str(data / "train.csv"), "--images", str(data / "photos")),
        *("--model", str(variant), "--backbone-weights", str(preset), "--steps", "1"),
        *("--set", "decoder.vocabulary_size=300", "--feature-cache", str(tmp_path / "cache")),
        *("--out", str(tmp_path / "run"), "--set", "encoder.backbone.trainable_blocks=0"),
    ]
    assert main(command) == 0
    assert f"0.0 M parameters of swin from {preset}" in capsys.readouterr().err
    trained = Captioner.from_preset(tmp_path / "run")
    source = load_backbone(preset)
    for old, new in zip(source.net.weights, trained.encoder.backbone.net.weights, strict=True):
        np.testing.assert_array_equal(numpy(old), numpy(new))
    photo = np.zeros((30, 40, 3), np.uint8)
    assert isinstance(trained.generate(photo, Greedy(max_new_tokens=3)), str)


@pytest.mark.slow
def test_weights_come_from_presets_of_both_kinds(preset, tokenizer, tmp_path):
    source = load_backbone(preset)
    hparams = tiny_hparams()
    hparams["encoder"]["backbone"] = source.get_config()
    captioner = Captioner.from_hparams(hparams, tokenizer)
    captioner.encoder.backbone.net.set_weights(source.net.get_weights())
    captioner.save_to_preset(tmp_path / "captioner")
    for weights in (preset, tmp_path / "captioner"):
        backbone = Backbone.from_config(source.get_config())
        assert "M parameters" in load_backbone_weights(backbone, str(weights))
        for old, new in zip(source.net.weights, backbone.net.weights, strict=True):
            np.testing.assert_array_equal(numpy(old), numpy(new))


def test_a_preset_with_windows_of_another_size_is_interpolated(file, preset):
    config = load_backbone(preset).get_config()
    config["network"]["config"] |= {"window_size": 5, "image_size": [40, 40]}
    config["image_size"] = [40, 40]
    from_preset, from_file = Backbone.from_config(config), Backbone.from_config(config)
    message = copy_preset_backbone(from_preset, preset)
    assert message.endswith("biases of 7x7 windows interpolated to 5x5, as in X-VLM")
    load_backbone_weights(from_file, str(file))
    for old, new in zip(from_preset.net.weights, from_file.net.weights, strict=True):
        np.testing.assert_array_equal(numpy(old), numpy(new))


def one_layer() -> keras.Model:
    """Returns a network of one convolution."""
    images = keras.Input((32, 32, 3))
    return keras.Model(images, keras.layers.Conv2D(2, 8, 8)(images), name="one_layer")


def test_a_preset_of_another_network_is_an_error(preset, tmp_path, monkeypatch):
    with pytest.raises(ValueError, match="Expected the preprocessing of swin in .*Received: "):
        copy_preset_backbone(Backbone(tiny_network()), preset)
    spec = BackboneSpec(lambda shape: tiny_network(), (32, 32), Preprocessing())
    monkeypatch.setitem(BACKBONES, "tiny_network", spec)
    save_backbone(Backbone("tiny_network"), tmp_path / "named")
    with pytest.raises(
        ValueError,
        match=r"network=tiny_network --set encoder\.backbone\.image_size=\[32,32\]\. "
        "Received: one_layer",
    ):
        copy_preset_backbone(Backbone(one_layer()), tmp_path / "named")
    save_backbone(Backbone(tiny_network()), tmp_path / "tiny")
    with pytest.raises(ValueError, match="has 14 weights of a network. Received: 2"):
        copy_preset_backbone(Backbone(one_layer()), tmp_path / "tiny")
    wider = Backbone(tiny_network(filters=10))
    before = [numpy(weight) + 0 for weight in wider.net.weights]
    with pytest.raises(ValueError, match=r"block2a_conv/kernel \(3, 3, 6, 12\) for .*, 10\)"):
        copy_preset_backbone(wider, tmp_path / "tiny")
    for old, new in zip(before, wider.net.weights, strict=True):
        np.testing.assert_array_equal(old, numpy(new))


def test_a_swins_file_for_another_network_is_an_error(file):
    message = (
        r"network=\.\.\. --set encoder\.backbone\.image_size=\[56,56\]\. Received: tiny_network"
    )
    with pytest.raises(ValueError, match=message):
        load_backbone_weights(Backbone(tiny_network()), str(file))


def test_a_swin_without_a_file_is_an_error():
    network = SwinTransformer((32, 32), 4, (1,), (1,), name="swin_tiny")
    backbone = SimpleNamespace(network="swin_tiny", net=network)
    with pytest.raises(FileNotFoundError, match="weights of swin_tiny are not downloaded"):
        load_backbone_weights(backbone, None)
    assert load_backbone_weights(backbone, "none") is None


def test_the_preset_of_a_backbone_is_no_captioner(preset):
    message = "holds a backbone alone, not a captioner: use it with --backbone-weights"
    with pytest.raises(ValueError, match=message):
        Captioner.from_preset(preset)


@pytest.mark.parametrize(
    ("options", "message"),
    (
        (["--model", "gpt2-124m"], "--model cannot be used with the file of a backbone"),
        (["--tokenizer", "x"], "--tokenizer cannot be used with the file of a backbone"),
        (["--backbone-weights", "none"], "--backbone-weights cannot be used with the file"),
        (["--set", "decoder.dropout=0.1"], "Expected settings of encoder.backbone"),
        (["--set", "encoder.dropout=0.1"], "Expected settings of encoder.backbone"),
        (["--set", "encoder.backbone.fit=no"], "Cannot create the backbone of .*fit='no'"),
        (["--set", "encoder.backbone.color=1"], "Cannot create the backbone of"),
    ),
)
def test_options_that_do_not_fit_are_errors(options, message, file, tmp_path, capsys):
    line = fails(["convert", str(file), str(tmp_path / "new"), *options], capsys)
    assert message.partition(".*")[0] in line and message.rpartition(".*")[2] in line
    assert not (tmp_path / "new").exists()


def test_settings_of_the_backbone_are_kept(file, tmp_path):
    folder = tmp_path / "preset"
    command = ["convert", str(file), str(folder), "--set", "encoder.backbone.fit=crop"]
    assert main(command) == 0
    assert load_backbone(folder).fit == "crop"


def test_tensors_that_do_not_fit_are_listed(weights, tmp_path, capsys):
    path = tmp_path / "broken.th"
    broken = {name: array for name, array in weights.items() if name != "norm.bias"}
    path.write_bytes(checkpoint({"model": broken | {"norm.scale": np.ones(3, np.float32)}}))
    line = fails(["convert", str(path), str(tmp_path / "new")], capsys)
    assert "missing: norm.bias (16,)" in line and "unexpected: norm.scale (3,)" in line
    assert not (tmp_path / "new").exists()
