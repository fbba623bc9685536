"""Tests of effcap.weights.swin_weights and what it uses, with files like torch.save's."""

from __future__ import annotations

import numpy as np
import pytest

from effcap.backbones.backbone import Backbone
from effcap.backbones.registry import BACKBONES, STANDARDIZE, STANDARDIZE_CLIP
from effcap.backbones.swin import VARIANTS, SwinTransformer, xvlm_arguments
from effcap.weights.position_bias import interpolate_position_bias, window_side
from effcap.weights.swin_checkpoint import find_swin, open_swin, swin_arguments
from effcap.weights.swin_weights import load_swin, swin_backbone
from helpers.captioners import numpy
from helpers.swin_files import REFERENCE, reference, write_swin, write_xvlm
from helpers.torch_writer import checkpoint

TABLE = "layers.0.blocks.0.attn.relative_position_bias_table"


@pytest.fixture(scope="module")
def timm() -> dict:
    return reference("timm")


@pytest.fixture(scope="module")
def shared_network(timm) -> SwinTransformer:
    return SwinTransformer(**timm["config"])


@pytest.fixture
def network(shared_network) -> SwinTransformer:
    """A network whose weights are zero."""
    for weight in shared_network.weights:
        weight.assign(np.zeros(weight.shape, np.float32))
    return shared_network


def values(network: SwinTransformer) -> list[np.ndarray]:
    """Returns copies of a network's weights."""
    return [numpy(weight) + 0 for weight in network.weights]


@pytest.mark.parametrize("write", [write_swin, write_xvlm])
def test_every_layout_fills_the_same_network(write, timm, network, tmp_path):
    path = write(tmp_path / "swin.th", timm["weights"])
    message = load_swin(network, path)
    received = numpy(network(timm["images"]))
    np.testing.assert_allclose(received, timm["tokens"], rtol=0, atol=2e-5)
    lines = message.splitlines()
    assert lines[0] == f"0.0 M parameters from {path}" and len(lines) == 2
    buffers = "relative_position_index (2 tensors)"
    if write is write_swin:
        assert lines[1] == f"skipped: attn_mask (1 tensor), head (1 tensor), {buffers}"
    else:
        assert lines[1] == (
            "skipped: attn_mask (1 tensor), bbox_head (1 tensor), itm_head (1 tensor), "
            f"optimizer (1 tensor), {buffers}, temp (1 tensor), text_encoder (2 tensors), "
            "text_proj (1 tensor), vision_proj (1 tensor)"
        )


@pytest.mark.parametrize("prefix", ["", "vision_encoder."])
@pytest.mark.parametrize("form", ["zip", "legacy"])
def test_bare_state_dicts_of_both_formats_are_read(prefix, form, timm, network, tmp_path):
    path = tmp_path / "bare.pth"
    tensors = {f"{prefix}{name}": array for name, array in timm["weights"].items()}
    path.write_bytes(checkpoint(tensors, form))
    assert "skipped" not in load_swin(network, path)
    np.testing.assert_allclose(numpy(network(timm["images"])), timm["tokens"], atol=2e-5)


def test_the_sizes_are_those_of_the_file(timm, tmp_path):
    config = timm["config"]
    for write, mean_token in ((write_swin, False), (write_xvlm, True)):
        arguments = swin_arguments(open_swin(write(tmp_path / "swin.th", timm["weights"])))
        assert arguments == {
            "image_size": (56, 56),  # of four windows
            "embed_dim": 8,
            "depths": (3, 2),
            "num_heads": (2, 4),
            "window_size": 7,
            "mean_token": mean_token,
        }
        assert config["window_size"] == 7


@pytest.mark.parametrize("write", [write_swin, write_xvlm])
def test_a_backbone_of_no_published_size_is_a_keras_model(write, timm, tmp_path):
    swin = open_swin(write(tmp_path / "swin.th", timm["weights"]))
    backbone = Backbone(**swin_backbone(swin))
    assert backbone.feature_shape == (49 + swin.is_xvlm, 16) and backbone.image_size == (56, 56)
    expected = STANDARDIZE_CLIP if swin.is_xvlm else STANDARDIZE
    assert backbone.preprocessing == expected
    load_swin(backbone.net, swin)


def sizes_only(monkeypatch, arguments: dict, is_xvlm: bool) -> dict:
    """Returns the backbone of a file of these sizes, without the file."""
    arguments = {"mean_token": False, **arguments}
    monkeypatch.setattr("effcap.weights.swin_weights.swin_arguments", lambda file: arguments)
    return swin_backbone(type("File", (), {"is_xvlm": is_xvlm}))


def test_backbones_of_published_sizes_have_names(monkeypatch):
    for name, arguments in VARIANTS.items():
        size = list(BACKBONES[name].image_size)
        found = sizes_only(monkeypatch, arguments, False)
        assert found == {"network": name, "image_size": size}
    for side in (224, 384, 480):
        found = sizes_only(monkeypatch, xvlm_arguments((side, side)), True)
        assert found == {"network": "xvlm_swin_base", "image_size": [side, side]}


def test_interpolated_biases_are_those_of_xvlm():
    with np.load(REFERENCE) as file:
        cases = [name for name in file if name.startswith("bias/") and name.count("/") == 2]
        assert len(cases) == 4
        for name in cases:
            table = file[name.rpartition("/")[0]]
            window_size = (int(name.rpartition("/")[2]) + 1) // 2
            received = interpolate_position_bias(table, window_size)
            assert received.dtype == np.float32 and window_side(len(received)) == window_size
            np.testing.assert_allclose(received, file[name], rtol=0, atol=1e-6)


def test_biases_of_the_same_window_are_kept_to_the_bit():
    table = np.random.default_rng(0).normal(size=(169, 3)).astype(np.float32)
    assert interpolate_position_bias(table, 7) is table


def test_biases_are_interpolated_where_the_window_differs(timm, tmp_path):
    path = write_xvlm(tmp_path / "swin.th", timm["weights"])
    config = timm["config"] | {"image_size": (96, 96), "window_size": 12, "mean_token": True}
    network = SwinTransformer(**config)
    lines = load_swin(network, path).splitlines()
    expected = "relative position biases of 7x7 windows interpolated to 12x12, as in X-VLM"
    assert lines[-1] == expected
    biases = numpy(network.get_layer("stage0_block0").attention.position_bias.embeddings)
    expected = interpolate_position_bias(timm["weights"][TABLE], 12)
    np.testing.assert_allclose(biases, expected, atol=1e-6)


@pytest.mark.parametrize(
    "change, message",
    [
        (lambda w: w.pop("norm.bias"), r"missing: norm\.bias \(16,\)\."),
        (
            lambda w: w.update({"layers.1.blocks.2.norm1.bias": np.zeros(16, np.float32)}),
            r"unexpected: layers\.1\.blocks\.2\.norm1\.bias \(16,\)",
        ),
        (
            lambda w: w.update({"absolute_pos_embed": np.zeros((1, 3), np.float32)}),
            r"unexpected: absolute_pos_embed \(1, 3\)",
        ),
        (
            lambda w: w.update({"layers.0.blocks.0.mlp.fc1.weight": np.ones((8, 32), np.float32)}),
            r"of another shape: layers\.0\.blocks\.0\.mlp\.fc1\.weight \(8, 32\) for \(32, 8\)",
        ),
        (
            lambda w: w.update({TABLE: np.ones((9, 2), np.float32)}),
            r"of another shape: .*bias_table \(9, 2\) for \(169, 2\)",
        ),
        (
            lambda w: w.update({"norm.bias": np.full(16, np.nan, np.float32)}),
            r"not finite: norm\.bias\.",
        ),
    ],
)
@pytest.mark.parametrize("write", [write_swin, write_xvlm])
def test_tensors_that_do_not_fit_are_errors(write, change, message, timm, network, tmp_path):
    weights = dict(timm["weights"])
    change(weights)
    before = values(network)
    with pytest.raises(ValueError, match=f"(?s)do not fit.*{message}.*Nothing was loaded"):
        load_swin(network, write(tmp_path / "swin.th", weights))
    for old, new in zip(before, values(network), strict=True):
        np.testing.assert_array_equal(old, new)


@pytest.mark.parametrize("name", ["mystery.weight", "text_encoders.bias", "head.weight"])
def test_unknown_parts_of_xvlm_are_errors(name, timm, network, tmp_path):
    path = write_xvlm(tmp_path / "x.th", timm["weights"], **{name: np.ones(3, np.float32)})
    with pytest.raises(ValueError, match=rf"unexpected: model\.{name} \(3,\)"):
        load_swin(network, path)


def test_a_file_without_a_swin_is_an_error(timm, network, tmp_path):
    path = tmp_path / "other.pth"
    path.write_bytes(checkpoint({"model": {"conv.weight": np.ones((2, 2), np.float32)}}))
    assert find_swin(path) is None
    with pytest.raises(ValueError, match=r"patch_embed\.proj\.weight.*start model\.conv\.weight"):
        load_swin(network, path)
    with pytest.raises(FileNotFoundError):
        load_swin(network, tmp_path / "nowhere.pth")
