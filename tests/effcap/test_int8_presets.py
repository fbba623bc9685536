"""Tests of presets with weights in int8: what is stored, what is loaded, and damaged files."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import h5py
import keras
import numpy as np
import pytest
from keras import ops

from effcap import presets, weight_files
from effcap.captioner import Captioner
from effcap.conversion.backbone_preset import load_backbone, save_backbone
from effcap.conversion.stored_preset import convert_stored_preset
from effcap.presets import CONFIG, WEIGHTS
from effcap.samplers import Greedy
from effcap.tools.cli import main
from effcap.utils.quantization import dequantize, quantize
from effcap.weight_files import is_int8, output_axis, stored_weights
from helpers.captioners import compile_quickly, example_batch, numpy, randomize, tiny_hparams

NAME = "decoder/token_embedding/vars/0"


@pytest.fixture(autouse=True)
def small_matrices(monkeypatch):
    """Stores matrices as small as those of the tiny captioner in int8."""
    monkeypatch.setattr(weight_files, "MIN_SIZE", 64)


@pytest.fixture(scope="module")
def saved(tokenizer, tmp_path_factory):
    """A preset in int8, of a captioner with random weights."""
    keras.utils.set_random_seed(0)
    folder = tmp_path_factory.mktemp("int8") / "preset"
    captioner = randomize(Captioner.from_hparams(tiny_hparams(), tokenizer))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(weight_files, "MIN_SIZE", 64)
        captioner.save_to_preset(folder, "int8")
    return folder


@pytest.fixture
def preset(saved, tmp_path):
    """A copy of that preset that a test may damage."""
    return shutil.copytree(saved, tmp_path / "preset")


def scales_of(folder) -> dict[str, np.ndarray]:
    """Returns the scales of each weight that is stored in int8."""
    with h5py.File(folder / WEIGHTS) as file:
        weights = stored_weights(file)
        return {name: item["scales"][()] for name, item in weights.items() if is_int8(item)}


def plain(folder) -> dict[str, np.ndarray]:
    """Returns the weights of a preset in float32 by their names in the file."""
    with h5py.File(folder / WEIGHTS) as file:
        return {name: item[()] for name, item in stored_weights(file).items()}


def test_weights_are_rounded_to_half_a_step_of_their_scale(captioner, tmp_path):
    captioner.save_to_preset(tmp_path / "full")
    captioner.save_to_preset(tmp_path / "int8", "int8")
    scales, expected = scales_of(tmp_path / "int8"), plain(tmp_path / "full")
    assert scales[NAME].shape == (290, 1)
    Captioner.from_preset(tmp_path / "int8").save_to_preset(tmp_path / "loaded")
    received = plain(tmp_path / "loaded")
    assert received.keys() == expected.keys()
    matrices = {name for name, x in expected.items() if x.ndim > 1 and x.size >= 64}
    assert matrices - {"encoder/projection/vars/0"} == scales.keys()  # 12 values for each scale
    for name, array in expected.items():
        assert received[name].dtype == np.float32
        step = scales.get(name, np.float32(0))
        assert (np.abs(received[name] - array) <= step / 2 * 1.001).all(), name


def test_the_file_is_less_than_three_tenths_of_float32(tmp_path, monkeypatch):
    monkeypatch.undo()  # sizes as they are
    model = keras.Sequential([keras.Input((256,)), *(keras.layers.Dense(512) for _ in range(3))])
    sizes = {}
    for dtype in ("float32", "int8"):
        presets.save_preset(model, tmp_path / dtype, {}, None, dtype)
        sizes[dtype] = (tmp_path / dtype / WEIGHTS).stat().st_size
    assert sizes["int8"] < 0.3 * sizes["float32"]


def test_a_preset_loaded_and_saved_again_is_the_same_file(saved, tmp_path):
    Captioner.from_preset(saved).save_to_preset(tmp_path, "int8")
    for file in saved.iterdir():
        assert (tmp_path / file.name).read_bytes() == file.read_bytes(), file.name


def test_each_output_has_a_scale():
    assert output_axis("decoder/token_embedding/vars/0", (290, 16)) == 0
    assert output_axis("decoder/blocks/block/mlp/c_fc/vars/0", (16, 64)) == 1
    assert output_axis("encoder/patch_embedding/vars/0", (4, 4, 3, 16)) == 3
    assert output_axis("backbone/depthwise_conv2d/vars/0", (5, 5, 30, 1)) == 2
    array = np.random.default_rng(0).normal(size=(5, 5, 30, 1)).astype(np.float32)
    assert quantize(array, 2)[1].shape == (1, 1, 30, 1)
    assert quantize(array[:3, :3], 2) is None  # 9 values for each scale
    zeros = np.zeros((20, 20), np.float32)
    np.testing.assert_array_equal(dequantize(*quantize(zeros, 0)), zeros)


@pytest.mark.slow
def test_a_trained_captioner_writes_the_same_captions(trained_run, tmp_path, eager):
    convert_stored_preset(trained_run.folder / "best", tmp_path / "int8", "int8")
    photos = sorted((trained_run.data / "photos").glob("*.jpg"))[:6]
    sampler = Greedy(max_new_tokens=8)
    captioners = [
        Captioner.from_preset(x) for x in (trained_run.folder / "best", tmp_path / "int8")
    ]
    exact, rounded = (x.generate(photos, sampler, details=True) for x in captioners)
    pairs = list(zip(exact, rounded, strict=True))
    equal = [(one[0].score, other[0].score) for one, other in pairs if one[0].text == other[0].text]
    assert len(equal) >= 5
    np.testing.assert_allclose(*zip(*equal, strict=True), rtol=0.02)
    assert [one[0].score for one in exact] != [other[0].score for other in rounded]


def test_bfloat16_weights_are_those_of_float32_rounded(saved):
    exact = Captioner.from_preset(saved)
    rounded = Captioner.from_preset(saved, precision="bfloat16")
    for mine, theirs in zip(exact.weights, rounded.weights, strict=True):
        expected = ops.cast(mine, theirs.dtype)
        np.testing.assert_array_equal(
            numpy(ops.cast(theirs, "float32")), numpy(ops.cast(expected, "float32"))
        )


def test_weights_in_bfloat16_are_stored_in_int8(saved, tmp_path):
    captioner = Captioner.from_preset(saved, precision="bfloat16")
    captioner.save_to_preset(tmp_path, "int8")
    assert scales_of(tmp_path).keys() == scales_of(saved).keys()
    for mine, theirs in zip(
        captioner.weights, Captioner.from_preset(tmp_path).weights, strict=True
    ):
        values = numpy(ops.cast(mine, "float32"))
        np.testing.assert_allclose(numpy(theirs), values, atol=np.abs(values).max() / 250)


def test_an_adapter_is_saved_for_a_base_in_int8(saved, tmp_path):
    captioner = Captioner.from_preset(saved)
    captioner.add_adapter(rank=2, targets=["attention"])
    captioner.save_to_preset(tmp_path / "adapter", base=saved)
    loaded = Captioner.from_preset(tmp_path / "adapter")
    assert loaded.active_adapters == ("default",)
    assert not (tmp_path / "adapter" / WEIGHTS).exists()


def test_training_starts_from_weights_in_int8(saved):
    captioner = Captioner.from_preset(saved)
    compile_quickly(captioner)
    before = numpy(captioner.decoder.token_embedding.embeddings)
    losses = [
        captioner.train_on_batch(*example_batch(captioner), return_dict=True)["loss"]
        for _ in range(3)
    ]
    assert losses[-1] < losses[0]
    assert (numpy(captioner.decoder.token_embedding.embeddings) != before).any()


@pytest.mark.slow
def test_openvino_compiles_weights_in_int8(preset):
    pytest.importorskip("openvino")
    from effcap.conversion.compiled_preset import load_compiled

    captioner, compiled = Captioner.from_preset(preset), load_compiled(preset)
    photo = np.full((32, 32, 3), 90, np.uint8)
    sampler = Greedy(max_new_tokens=6)
    one, other = (x.generate(photo, sampler, details=True)[0] for x in (captioner, compiled))
    assert one.text == other.text
    np.testing.assert_allclose(one.score, other.score, rtol=1e-4)


def test_backbones_are_stored_in_int8(captioner, tmp_path):
    backbone = captioner.encoder.backbone
    save_backbone(backbone, tmp_path / "backbone", "int8")
    assert len(scales_of(tmp_path / "backbone")) == 3  # of the convolutions
    loaded = load_backbone(tmp_path / "backbone")
    for mine, theirs in zip(backbone.net.weights, loaded.net.weights, strict=True):
        atol = np.abs(numpy(mine)).max() / 250
        np.testing.assert_allclose(numpy(theirs), numpy(mine), atol=atol)


def test_keras_does_not_take_the_integers_for_weights(saved):
    captioner = Captioner.from_preset(saved)
    with pytest.raises(ValueError, match="could not be loaded|expected Dataset"):
        captioner.load_weights(saved / WEIGHTS)


def test_a_later_type_of_weights_asks_for_a_newer_version(preset, captioner, tmp_path):
    config = json.loads((preset / CONFIG).read_text())
    assert config["weights_dtype"] == "int8"
    (preset / CONFIG).write_text(json.dumps({**config, "weights_dtype": "int2"}))
    with pytest.raises(ValueError, match="weights in 'int2'.*install a newer one"):
        Captioner.from_preset(preset)
    save_backbone(captioner.encoder.backbone, tmp_path / "backbone", "int8")
    config = json.loads((tmp_path / "backbone" / CONFIG).read_text())
    (tmp_path / "backbone" / CONFIG).write_text(json.dumps({**config, "weights_dtype": "int2"}))
    with pytest.raises(ValueError, match="weights in 'int2'"):
        load_backbone(tmp_path / "backbone")


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_weights_that_are_not_finite_are_refused(preset, captioner, value):
    before = {file.name: file.read_bytes() for file in preset.iterdir()}
    table = captioner.decoder.token_embedding.embeddings
    values = numpy(table).copy()
    values[3, :2] = value
    table.assign(values)
    with pytest.raises(ValueError, match=f"2 of 4,640 values of {NAME} are infinite"):
        captioner.save_to_preset(preset, "int8")
    assert {file.name: file.read_bytes() for file in preset.iterdir()} == before


def test_a_full_disk_for_temporary_files_is_reported(saved, monkeypatch):
    def full(path, size):
        raise OSError(f"Not enough disk space in {path.parent}")

    monkeypatch.setattr(weight_files, "check_disk_space", full)
    with pytest.raises(OSError, match="^Not enough disk space"):
        Captioner.from_preset(saved)


def replace(file: h5py.File, name: str, data) -> None:
    del file[name]
    file[name] = data


def lie_elsewhere(file: h5py.File) -> None:
    del file[f"{NAME}/values"]
    layout = h5py.VirtualLayout((290, 16), "int8")
    file[NAME].create_virtual_dataset("values", layout)


def lead_elsewhere(file: h5py.File) -> None:
    other = Path(file.filename).with_name("other.h5")
    with h5py.File(other, "w") as data:
        data["values"] = file[f"{NAME}/values"][()]
    del file[f"{NAME}/values"]
    file[f"{NAME}/values"] = h5py.ExternalLink(other, "/values")


@pytest.mark.parametrize(
    ("harm", "message"),
    [
        (lambda f: replace(f, f"{NAME}/scales", np.ones((16,), "f4")), r"shape \(16,\)"),
        (lambda f: replace(f, f"{NAME}/scales", np.ones((290, 16), "f4")), "290, 16"),
        (lambda f: replace(f, f"{NAME}/scales", np.ones((999, 16), "f4")), "15984 scales for 4640"),
        (lambda f: replace(f, f"{NAME}/scales", np.ones((290, 1))), "int8 and float64"),
        (lambda f: replace(f, f"{NAME}/scales", np.full((290, 1), np.nan, "f4")), "Received: nan"),
        (lambda f: replace(f, f"{NAME}/scales", np.full((290, 1), -1, "f4")), "Received: -1.0"),
        (lambda f: replace(f, f"{NAME}/scales", np.zeros((290, 1), "f4")), "Received: 0.0"),
        (lambda f: replace(f, f"{NAME}/values", np.ones((290, 16), "i2")), "Received: int16"),
        (lambda f: replace(f, f"{NAME}/values", np.ones((290, 8), "i1")), "values for a model"),
        (lambda f: replace(f, f"{NAME}/values", np.ones((145, 32), "i1")), "290, 1"),
        (lambda f: f.__delitem__(f"{NAME}/values"), "values"),
        (lambda f: f.__delitem__(f"{NAME}/scales"), "scales"),
        (lambda f: f.__delitem__(NAME), "weights for a model with"),
        (lie_elsewhere, "is stored in another file"),
        (lead_elsewhere, "has no values and scales, or elsewhere"),
    ],
)
def test_damaged_files_are_refused(preset, harm, message):
    with h5py.File(preset / WEIGHTS, "a") as file:
        harm(file)
    with pytest.raises(ValueError, match=f"{WEIGHTS} does not hold the weights.*{message}"):
        Captioner.from_preset(preset)


def test_bytes_that_do_not_decompress_are_refused(preset):
    with h5py.File(preset / WEIGHTS) as file:
        chunk = file[f"{NAME}/values"].id.get_chunk_info(0)
    with (preset / WEIGHTS).open("r+b") as stream:
        stream.seek(chunk.byte_offset)
        stream.write(bytes(chunk.size))
    with pytest.raises(ValueError, match=f"{WEIGHTS} does not hold the weights.*{NAME}"):
        Captioner.from_preset(preset)


def test_convert_stores_a_preset_in_another_type(saved, tmp_path, capsys):
    (record := saved / "training.json").write_text('{"seed": 3}')
    folder = tmp_path / "half"
    assert main(["convert", str(saved), str(folder), "--dtype", "float16"]) == 0
    record.unlink()
    line = capsys.readouterr().err.splitlines()[-1]
    assert line.startswith(f"preset: {folder} (float16), 0.") and line.endswith("MB of weights")
    assert json.loads((folder / "training.json").read_text()) == {"seed": 3}
    assert "weights_dtype" not in json.loads((folder / CONFIG).read_text())
    assert main(["convert", str(saved), str(tmp_path / "x"), "--model", "lite0-small"]) == 2
    assert "--model cannot be used with a preset" in capsys.readouterr().err
