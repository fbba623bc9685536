"""Tests of effcap.trainers.data.audio.msd_vgg and msd_vgg_weights."""

from __future__ import annotations

import importlib.util
import zipfile
from pathlib import Path

import keras
import numpy as np
import pytest

from effcap.trainers.data.audio.msd_vgg import MSDVGG, POOLINGS
from effcap.trainers.data.audio.msd_vgg_weights import (
    DATA,
    INDEX,
    fill_from_checkpoint,
    load_msd_vgg,
)
from helpers.audio_reference import seeded, windows

REFERENCE = Path(__file__).resolve().parents[1] / "data" / "msd_vgg_reference.npz"
needs_weights = pytest.mark.skipif(
    importlib.util.find_spec("musicnn") is None,
    reason="the trained weights are not installed: pip install --no-deps musicnn==0.1.0",
)


@pytest.fixture(scope="module")
def reference() -> dict[str, np.ndarray]:
    return dict(np.load(REFERENCE))


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory) -> Path:
    """Returns a folder with seeded weights in musicnn's format."""
    folder = tmp_path_factory.mktemp("checkpoint")
    extra = {
        "dense/kernel": np.ones((256, 50), np.float32),
        "dense/bias": np.ones(50, np.float32),
        "1CNN/kernel/Adam": np.ones((3, 3, 1, 128), np.float32),
        "1CNN/kernel/Adam_1": np.ones((3, 3, 1, 128), np.float32),
        "beta1_power": np.float32(0.1),
        "beta2_power": np.float32(0.1),
    }
    write_checkpoint(folder, seeded() | extra)
    return folder


@pytest.fixture(scope="module")
def wheel(checkpoint, tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("wheel") / "musicnn-0.1.0-py3-none-any.whl"
    with zipfile.ZipFile(path, "w") as archive:
        for name in (INDEX, DATA):
            archive.write(checkpoint / name, f"musicnn/MSD_vgg/{name}")
        archive.writestr("musicnn/MTT_vgg/.index", b"that of another network")
    return path


def write_checkpoint(folder: Path, tensors: dict[str, np.ndarray]) -> None:
    """Writes a checkpoint with an empty name, as musicnn's."""
    tf = pytest.importorskip("tensorflow", reason="checkpoints are read with TensorFlow")
    tf.raw_ops.SaveV2(
        prefix=f"{folder}/",
        tensor_names=list(tensors),
        shape_and_slices=[""] * len(tensors),
        tensors=list(tensors.values()),
    )


def outputs(model: keras.Model, inputs: np.ndarray) -> np.ndarray:
    return keras.ops.convert_to_numpy(model(inputs, training=False))


@pytest.mark.parametrize("pooling", sorted(POOLINGS))
def test_seeded_weights_match_the_stored_graph(pooling, reference):
    model = MSDVGG(pooling)
    fill_from_checkpoint(model, seeded())
    received = outputs(model, windows())
    np.testing.assert_allclose(received, reference[f"{pooling}_seeded"], rtol=0, atol=1e-4)


@needs_weights
@pytest.mark.parametrize("pooling", sorted(POOLINGS))
def test_trained_weights_match_the_stored_graph(pooling, reference):
    model = MSDVGG(pooling)
    load_msd_vgg(model)
    np.testing.assert_allclose(outputs(model, windows()), reference[pooling], rtol=0, atol=1e-4)


def test_the_reference_distinguishes_the_poolings(reference):
    for kind in ("", "_seeded", "_track"):
        assert np.abs(reference[f"trained{kind}"] - reference[f"musicnn{kind}"]).max() > 1


def test_features_are_the_channels_of_the_first_half_then_the_second():
    model = MSDVGG()
    fill_from_checkpoint(model, seeded())
    inputs = windows()[:1]
    changed = inputs.copy()
    changed[:, -40:] = 0  # the end of the window alone
    before, after = outputs(model, inputs)[0], outputs(model, changed)[0]
    np.testing.assert_array_equal(before[:128], after[:128])
    assert np.abs(before[128:] - after[128:]).max() > 0.1


def test_each_variable_affects_the_features():
    model = MSDVGG()
    weights = seeded()
    fill_from_checkpoint(model, weights)
    inputs = windows()[:1]
    expected = outputs(model, inputs)
    for name in weights:
        fill_from_checkpoint(model, weights | {name: 1.5 * weights[name] + 0.1})
        assert np.abs(outputs(model, inputs) - expected).max() > 1e-3, name


def test_another_pooling_is_an_error():
    with pytest.raises(ValueError, match="out of trained, musicnn. Received: pooling='max'"):
        MSDVGG("max")


@pytest.mark.parametrize("source", ["wheel", "folder of a wheel", "checkpoint", "package"])
def test_weights_load_from_a_wheel_and_from_folders(source, wheel, checkpoint, tmp_path):
    paths = {"wheel": wheel, "folder of a wheel": wheel.parent, "checkpoint": checkpoint}
    if source == "package":
        (tmp_path / "MSD_vgg").symlink_to(checkpoint)
    model = MSDVGG()
    load_msd_vgg(model, paths.get(source, tmp_path))
    for layer, name in (("conv3", "3CNN"), ("bn0", "batch_normalization")):
        loaded = model.get_layer(layer).get_weights()
        stored = [weight for key, weight in seeded().items() if key.startswith(f"{name}/")]
        for received, expected in zip(loaded, stored, strict=True):
            np.testing.assert_array_equal(received, expected)


def test_an_installed_package_is_read_but_never_imported(checkpoint, tmp_path, monkeypatch):
    package = tmp_path / "musicnn"
    package.mkdir()
    (package / "__init__.py").write_text("raise RuntimeError('imported')")
    (package / "MSD_vgg").symlink_to(checkpoint)
    monkeypatch.syspath_prepend(tmp_path)
    model = MSDVGG()
    load_msd_vgg(model)
    np.testing.assert_array_equal(
        model.get_layer("conv1").get_weights()[0], seeded()["1CNN/kernel"]
    )


def test_missing_weights_name_the_package_to_install(tmp_path, monkeypatch):
    model = MSDVGG()
    with pytest.raises(FileNotFoundError, match=r"pip install --no-deps musicnn==0\.1\.0"):
        load_msd_vgg(model, tmp_path)
    with pytest.raises(FileNotFoundError, match=f"Received: {tmp_path}/gone.whl"):
        load_msd_vgg(model, tmp_path / "gone.whl")
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(FileNotFoundError, match=r"pip install --no-deps musicnn==0\.1\.0"):
        load_msd_vgg(model)


@pytest.mark.parametrize(
    "change, message",
    [
        ({"3CNN/bias": None}, r"conv3/bias \(128,\) has no 3CNN/bias in the checkpoint"),
        ({"6CNN/bias": np.ones(128)}, r"6CNN/bias \(128,\) has no variable in the model"),
        ({"1CNN/kernel": np.ones((3, 3, 1, 64))}, r"does not fit the checkpoint's 1CNN/kernel"),
        ({"2CNN/bias": np.full(128, np.nan)}, "2CNN/bias holds values that are not finite"),
    ],
)
def test_mismatched_weights_are_listed_and_nothing_is_loaded(change, message):
    tensors = {name: value for name, value in (seeded() | change).items() if value is not None}
    model = MSDVGG()
    before = model.get_weights()
    with pytest.raises(ValueError, match=message) as error:
        fill_from_checkpoint(model, tensors)
    assert "nothing was loaded; 1 differences" in str(error.value)
    for old, new in zip(before, model.get_weights(), strict=True):
        np.testing.assert_array_equal(old, new)


def test_a_mismatched_checkpoint_is_named(tmp_path):
    write_checkpoint(tmp_path, {"1CNN/bias": np.ones(128, np.float32)})
    with pytest.raises(ValueError, match=f"^{tmp_path}: these are not the weights of MSD_vgg"):
        load_msd_vgg(MSDVGG(), tmp_path)


@pytest.mark.parametrize("damage", ["cut data", "no data", "no index", "no checkpoint"])
def test_damaged_weights_are_an_error_with_their_path(damage, checkpoint, wheel, tmp_path):
    path = tmp_path
    for name in (INDEX, DATA):
        content = (checkpoint / name).read_bytes()
        (path / name).write_bytes(content[: len(content) // 2] if damage == "cut data" else content)
    if damage == "no data":
        (path / DATA).unlink()
    elif damage == "no index":
        (path / INDEX).write_bytes(b"")
    elif damage == "no checkpoint":
        path = tmp_path / "musicnn.whl"
        path.write_bytes(wheel.read_bytes()[:1000])
    with pytest.raises(ValueError, match=f"Expected .*Received: {path}"):
        load_msd_vgg(MSDVGG(), path)
