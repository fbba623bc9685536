"""Tests of effcap.presets: saving, loading, and errors of damaged presets."""

from __future__ import annotations

import errno
import json
import os
import shutil

import h5py
import keras
import numpy as np
import pytest

from effcap import presets
from effcap.captioner import Captioner
from effcap.presets import CONFIG, RECORD, TOKENIZER, WEIGHTS
from effcap.tokenizers import Tokenizer
from helpers.captioners import CAPTIONS, compile_quickly, example_batch, numpy, tiny_hparams


@pytest.fixture(scope="module")
def saved(tokenizer, tmp_path_factory):
    folder = tmp_path_factory.mktemp("presets") / "saved"
    Captioner.from_hparams(tiny_hparams(), tokenizer).save_to_preset(folder)
    return folder


@pytest.fixture
def preset(saved, tmp_path):
    """A copy of a preset that a test may damage."""
    return shutil.copytree(saved, tmp_path / "preset")


def arrays(path) -> dict[str, np.ndarray]:
    found = {}
    with h5py.File(path) as file:
        file.visititems(
            lambda name, item: (
                found.update({name: item[()]}) if isinstance(item, h5py.Dataset) else None
            )
        )
    return found


def test_preset_is_three_plain_files(preset):
    assert sorted(file.name for file in preset.iterdir()) == [CONFIG, WEIGHTS, TOKENIZER]


@pytest.mark.slow
def test_optimizer_state_is_not_saved_and_training_continues(captioner, tmp_path):
    compile_quickly(captioner)
    captioner.train_on_batch(*example_batch(captioner))
    optimizer = captioner.optimizer
    captioner.save_to_preset(tmp_path / "preset")
    assert len(arrays(tmp_path / "preset" / WEIGHTS)) == len(captioner.weights)
    assert captioner.optimizer is optimizer
    captioner.train_on_batch(*example_batch(captioner))
    assert int(numpy(optimizer.iterations)) == 2


def test_float16_presets_hold_the_rounded_weights(captioner, tmp_path):
    captioner.save_to_preset(tmp_path / "full")
    captioner.save_to_preset(tmp_path / "half", dtype="float16")
    full, half = (arrays(tmp_path / name / WEIGHTS) for name in ("full", "half"))
    assert {array.dtype.name for array in full.values()} == {"float32"}
    assert {array.dtype.name for array in half.values()} == {"float16"}
    for name, array in full.items():
        np.testing.assert_array_equal(half[name], array.astype("float16"))
    loaded = Captioner.from_preset(tmp_path / "half")
    for weight, mine in zip(loaded.weights, captioner.weights, strict=True):
        assert keras.backend.standardize_dtype(weight.dtype) == "float32"
        np.testing.assert_array_equal(numpy(weight), numpy(mine).astype("float16"))


def test_weights_beyond_the_range_of_float16_stay_float32(captioner, tmp_path):
    weight = captioner.encoder.projection.bias
    weight.assign(np.full(weight.shape, 1e5))
    captioner.save_to_preset(tmp_path / "half", dtype="float16")
    loaded = Captioner.from_preset(tmp_path / "half")
    np.testing.assert_array_equal(numpy(loaded.encoder.projection.bias), numpy(weight))


def test_other_dtypes_are_refused(captioner, tmp_path):
    with pytest.raises(ValueError, match="dtype='int4'"):
        captioner.save_to_preset(tmp_path / "preset", dtype="int4")


@pytest.mark.parametrize("fails", ["save_weights", "convert_weights"])
def test_a_failed_save_leaves_the_old_preset_intact(preset, captioner, monkeypatch, fails):
    before = {file.name: file.read_bytes() for file in preset.iterdir()}

    def full_disk(*arguments):
        raise OSError("no space left on device")

    monkeypatch.setattr(presets, fails, full_disk)
    with pytest.raises(OSError, match="no space"):
        captioner.save_to_preset(preset, dtype="float16")
    assert {file.name: file.read_bytes() for file in preset.iterdir()} == before


def test_saving_over_a_preset_keeps_other_files(preset, captioner):
    (preset / RECORD).write_text("{}")
    (preset / "notes.txt").write_text("mine")
    captioner.tokenizer = None
    captioner.save_to_preset(preset)
    assert sorted(file.name for file in preset.iterdir()) == [CONFIG, WEIGHTS, "notes.txt"]
    assert Captioner.from_preset(preset).tokenizer is None


def test_hyperparameters_can_change_where_the_weights_still_fit(preset):
    assert Captioner.from_preset(preset, decoder={"dropout": 0.5}).decoder.dropout == 0.5
    for num_layers in (1, 3):
        with pytest.raises(ValueError, match=f"{WEIGHTS} does not hold the weights"):
            Captioner.from_preset(preset, decoder={"num_layers": num_layers})


def change(path, **values):
    path.write_text(json.dumps(json.loads(path.read_text()) | values))


def damage(preset, name: str) -> None:
    (preset / name).write_bytes((preset / name).read_bytes()[:300])


def other_tokenizer(preset) -> None:
    Tokenizer.train(CAPTIONS[:3], vocabulary_size=280).save(preset / TOKENIZER)


@pytest.mark.parametrize(
    "harm, error, message",
    [
        (lambda p: (p / CONFIG).unlink(), FileNotFoundError, f"folder with {CONFIG}"),
        (lambda p: (p / WEIGHTS).unlink(), FileNotFoundError, WEIGHTS),
        (lambda p: (p / TOKENIZER).unlink(), FileNotFoundError, TOKENIZER),
        (lambda p: damage(p, CONFIG), ValueError, f"{CONFIG} is not a JSON file"),
        (lambda p: damage(p, WEIGHTS), ValueError, WEIGHTS),
        (lambda p: damage(p, TOKENIZER), ValueError, TOKENIZER),
        (lambda p: (p / WEIGHTS).write_bytes(b""), ValueError, WEIGHTS),
        (lambda p: (p / CONFIG).write_text("[]"), ValueError, f"{CONFIG} lacks encoder"),
        (lambda p: change(p / CONFIG, encoder=3), ValueError, f"{CONFIG}.*encoder=3"),
        (lambda p: change(p / CONFIG, encoder={}), ValueError, f"{CONFIG}.*encoder.kind=None"),
        (lambda p: change(p / CONFIG, decoder={"widht": 3}), ValueError, CONFIG),
        (other_tokenizer, ValueError, f"{TOKENIZER}.*Received"),
    ],
)
def test_errors_name_the_missing_or_damaged_file(preset, harm, error, message):
    harm(preset)
    with pytest.raises(error, match=f"(?s){message}"):
        Captioner.from_preset(preset)


def test_an_unknown_preset_is_an_error():
    with pytest.raises(FileNotFoundError, match="Received: 'no-such-preset'"):
        Captioner.from_preset("no-such-preset")


def network_with(layer: dict) -> dict:
    """Returns the configuration of a network that ends in `layer`."""
    images = keras.Input((32, 32, 3), name="images")
    output = keras.layers.Conv2D(4, 8, 8, name="last")(images)
    config = keras.saving.serialize_keras_object(keras.Model(images, output))
    last = next(part for part in config["config"]["layers"] if part["name"] == "last")
    last.update(layer)
    return config


def lambda_layer() -> dict:
    layer = keras.layers.Lambda(lambda x: open("ran", "w") and x, name="last")  # noqa: SIM115
    return {
        key: value
        for key, value in keras.saving.serialize_keras_object(layer).items()
        if key in ("module", "class_name", "config", "registered_name")
    }


@pytest.mark.parametrize(
    "layer",
    [
        lambda_layer(),
        {"module": "os", "class_name": "system", "registered_name": "system"},
        {"module": "builtins", "class_name": "eval", "registered_name": "eval"},
        {"module": "mine", "class_name": "Mine", "registered_name": "mine>Mine"},
    ],
    ids=["lambda", "os", "builtins", "unknown"],
)
def test_loading_a_preset_runs_no_code_from_its_config(preset, layer, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    config = json.loads((preset / CONFIG).read_text())
    config["encoder"]["backbone"]["network"] = network_with(layer)
    (preset / CONFIG).write_text(json.dumps(config))
    with pytest.raises(ValueError, match=CONFIG):
        Captioner.from_preset(preset)
    assert not (tmp_path / "ran").exists()


def test_a_full_disk_is_reported_before_anything_is_written(captioner, tmp_path, monkeypatch):
    """HDF5 would end the process."""

    def full(file, start, size):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "posix_fallocate", full, raising=False)
    with pytest.raises(OSError, match=r"Not enough disk space in .*: \d+ MB needed, \d+ MB free"):
        captioner.save_to_preset(tmp_path / "preset")
    assert not list((tmp_path / "preset").iterdir())


def test_disk_space_is_checked_for_all_of_the_weights(captioner, tmp_path, monkeypatch):
    asked = []
    monkeypatch.setattr(
        os, "posix_fallocate", lambda file, start, size: asked.append(size), raising=False
    )
    captioner.save_to_preset(tmp_path / "preset")
    assert asked[0] >= (tmp_path / "preset" / "model.weights.h5").stat().st_size
