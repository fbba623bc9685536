"""Tests of effcap.presets: what comes back, and what a damaged preset says."""

from __future__ import annotations

import errno
import json
import os
import shutil

import h5py
import keras
import numpy as np
import pytest
from helpers.captioners import CAPTIONS, compile_quickly, example_batch, numpy, tiny_hparams

from effcap import presets
from effcap.captioner import Captioner
from effcap.presets import CONFIG, RECORD, TOKENIZER, WEIGHTS
from effcap.tokenizers.tokenizer import Tokenizer


@pytest.fixture(scope="module")
def saved(tokenizer, tmp_path_factory):
    folder = tmp_path_factory.mktemp("presets") / "saved"
    Captioner.from_hparams(tiny_hparams(), tokenizer).save_to_preset(folder)
    return folder


@pytest.fixture
def preset(saved, tmp_path):
    """A copy of a preset, to be damaged."""
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


def test_only_the_weights_of_the_model_are_kept(captioner, tmp_path):
    """Not the optimizer's, which would be twice as many; and training goes on unharmed."""
    compile_quickly(captioner)
    captioner.train_on_batch(*example_batch(captioner))
    optimizer = captioner.optimizer
    captioner.save_to_preset(tmp_path / "preset")
    assert len(arrays(tmp_path / "preset" / WEIGHTS)) == len(captioner.weights)
    assert captioner.optimizer is optimizer
    captioner.train_on_batch(*example_batch(captioner))
    assert int(numpy(optimizer.iterations)) == 2


def test_half_precision_takes_less_than_half_the_space(captioner, tmp_path):
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


def test_weights_beyond_half_precision_are_kept_whole(captioner, tmp_path):
    weight = captioner.encoder.project.bias
    weight.assign(np.full(weight.shape, 1e5))
    captioner.save_to_preset(tmp_path / "half", dtype="float16")
    loaded = Captioner.from_preset(tmp_path / "half")
    np.testing.assert_array_equal(numpy(loaded.encoder.project.bias), numpy(weight))


def test_other_dtypes_are_refused(captioner, tmp_path):
    with pytest.raises(ValueError, match="dtype='int8'"):
        captioner.save_to_preset(tmp_path / "preset", dtype="int8")


@pytest.mark.parametrize("fails", ["save_weights", "halve"])
def test_preset_stays_whole_where_saving_another_over_it_fails(
    preset, captioner, monkeypatch, fails
):
    before = {file.name: file.read_bytes() for file in preset.iterdir()}

    def full_disk(*arguments):
        raise OSError("no space left on device")

    monkeypatch.setattr(presets, fails, full_disk)
    with pytest.raises(OSError, match="no space"):
        captioner.save_to_preset(preset, dtype="float16")
    assert {file.name: file.read_bytes() for file in preset.iterdir()} == before


def test_saving_over_a_preset_leaves_what_is_not_its_own(preset, captioner):
    (preset / RECORD).write_text("{}")
    (preset / "notes.txt").write_text("mine")
    captioner.tokenizer = None
    captioner.save_to_preset(preset)
    assert sorted(file.name for file in preset.iterdir()) == [CONFIG, WEIGHTS, "notes.txt"]
    assert Captioner.from_preset(preset).tokenizer is None


def test_hyperparameters_can_be_replaced_where_the_weights_fit(preset, captioner):
    hparams = json.loads((preset / CONFIG).read_text())
    hparams["decoder"]["dropout"] = 0.5
    assert Captioner.from_preset(preset, hparams).decoder.dropout == 0.5
    for layers in (1, 3):
        hparams["decoder"]["layers"] = layers
        with pytest.raises(ValueError, match=f"{WEIGHTS} to hold the weights"):
            Captioner.from_preset(preset, hparams)


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
        (lambda p: damage(p, CONFIG), ValueError, f"JSON in .*{CONFIG}"),
        (lambda p: damage(p, WEIGHTS), ValueError, WEIGHTS),
        (lambda p: damage(p, TOKENIZER), ValueError, TOKENIZER),
        (lambda p: (p / WEIGHTS).write_bytes(b""), ValueError, WEIGHTS),
        (lambda p: (p / CONFIG).write_text("[]"), ValueError, f"{CONFIG}.*Missing: encoder"),
        (lambda p: change(p / CONFIG, encoder=3), ValueError, f"{CONFIG}.*encoder=3"),
        (lambda p: change(p / CONFIG, encoder={}), ValueError, f"{CONFIG}.*encoder.kind=None"),
        (lambda p: change(p / CONFIG, decoder={"widht": 3}), ValueError, CONFIG),
        (other_tokenizer, ValueError, f"{TOKENIZER}.*Received"),
    ],
)
def test_missing_or_damaged_file_is_named(preset, harm, error, message):
    harm(preset)
    with pytest.raises(error, match=f"(?s){message}"):
        Captioner.from_preset(preset)


def test_unknown_preset_is_named_with_those_there_are():
    with pytest.raises(FileNotFoundError, match="Received: 'no-such-preset'"):
        Captioner.from_preset("no-such-preset")


def network_with(layer: dict) -> dict:
    """The configuration of a network that ends in `layer`."""
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
def test_configuration_runs_no_code(preset, layer, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    config = json.loads((preset / CONFIG).read_text())
    config["encoder"]["backbone"]["network"] = network_with(layer)
    (preset / CONFIG).write_text(json.dumps(config))
    with pytest.raises(ValueError, match=CONFIG):
        Captioner.from_preset(preset)
    assert not (tmp_path / "ran").exists()


def test_a_full_disk_is_told_before_anything_is_written(captioner, tmp_path, monkeypatch):
    """Where HDF5 meets one itself, it ends the process."""

    def full(file, start, size):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "posix_fallocate", full, raising=False)
    with pytest.raises(OSError, match=r"Expected room for \d+ MB in .*No space left on device"):
        captioner.save_to_preset(tmp_path / "preset")
    assert not list((tmp_path / "preset").iterdir())


def test_room_is_made_for_all_that_is_written(captioner, tmp_path, monkeypatch):
    asked = []
    monkeypatch.setattr(
        os, "posix_fallocate", lambda file, start, size: asked.append(size), raising=False
    )
    captioner.save_to_preset(tmp_path / "preset")
    assert asked[0] >= (tmp_path / "preset" / "model.weights.h5").stat().st_size
