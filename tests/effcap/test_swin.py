"""Tests of effcap.backbones.swin, against the implementations of transformers and timm."""

from __future__ import annotations

import json
import subprocess
import sys

import keras
import numpy as np
import pytest
from keras import ops

from effcap.backbones.backbone import Backbone
from effcap.backbones.registry import BACKBONES, CLIP_MEAN, CLIP_STDDEV
from effcap.backbones.swin import SwinTransformer
from effcap.backbones.swin_block import relative_positions, shift_mask
from effcap.captioner import Captioner
from effcap.layers.roles import no_decay_variables
from effcap.weights.swin_weights import load_swin
from helpers.captioners import numpy, tiny_hparams
from helpers.cli_process import environment
from helpers.swin_files import reference, write_swin

TINY = {"image_size": (40, 32), "embed_dim": 8, "depths": (2, 2), "num_heads": (1, 2)}
PHOTOS = np.random.default_rng(0).integers(0, 256, (2, 40, 32, 3), dtype=np.uint8)


@pytest.fixture(scope="module")
def tiny() -> SwinTransformer:
    return SwinTransformer(**TINY, window_size=3)


@pytest.mark.parametrize(
    ("case", "mean_token"), [("transformers", True), ("timm", False), ("timm", True)]
)
def test_outputs_equal_those_of_other_implementations(case, mean_token, tmp_path):
    expected = reference(case)
    network = SwinTransformer(**expected["config"], mean_token=mean_token)
    load_swin(network, write_swin(tmp_path / "swin.pth", expected["weights"]))
    received = numpy(network(expected["images"]))
    tokens = expected["tokens"]
    if mean_token:
        tokens = np.concatenate([expected["mean"][:, None], tokens], axis=1)
    assert network.output_shape == (None, *tokens.shape[1:])
    np.testing.assert_allclose(received, tokens, rtol=0, atol=2e-5)


def test_each_relative_position_has_its_own_bias():
    positions = relative_positions(3)
    rows, columns = (axis.ravel() for axis in np.indices((3, 3)))
    offsets = {}
    for i in range(9):
        for j in range(9):
            offset = (rows[i] - rows[j], columns[i] - columns[j])
            assert offsets.setdefault(offset, positions[i, j]) == positions[i, j]
    assert len(set(offsets.values())) == len(offsets) == 25


def test_tokens_attend_across_a_shifted_border_only_where_they_were_neighbours():
    grid, side, shift = (6, 9), 3, 1
    mask = shift_mask(grid, side, shift)
    assert mask.shape == (6, 9, 9)
    before = np.arange(54).reshape(grid)
    after = np.roll(before, (-shift, -shift), (0, 1))
    windows = after.reshape(2, 3, 3, 3).transpose(0, 2, 1, 3).reshape(6, 9)
    rows, columns = np.divmod(windows, grid[1])
    near = (abs(rows[:, :, None] - rows[:, None]) < side) & (
        abs(columns[:, :, None] - columns[:, None]) < side
    )
    np.testing.assert_array_equal(mask, np.where(near, 0, -100))


@pytest.mark.parametrize(
    "name, parameters, features",
    [
        pytest.param("swin_tiny", 27_519_354, (49, 768), marks=pytest.mark.slow),
        pytest.param("swin_small", 48_837_258, (49, 768), marks=pytest.mark.slow),
        pytest.param("swin_base", 86_743_224, (49, 1024), marks=pytest.mark.slow),
        pytest.param("swin_base_384", 86_878_584, (144, 1024), marks=pytest.mark.slow),
        pytest.param("swin_large", 194_995_476, (49, 1536), marks=pytest.mark.slow),
        pytest.param("xvlm_swin_base", 86_878_584, (145, 1024), marks=pytest.mark.slow),
    ],
)
def test_named_networks_have_the_published_sizes(name, parameters, features):
    network = BACKBONES[name].build((*BACKBONES[name].image_size, 3))
    assert network.count_params() == parameters
    assert network.output_shape == (None, *features)
    assert network.name == name


@pytest.mark.parametrize("side, window_size", [(224, 7), (384, 12), (480, 15)])
@pytest.mark.slow
def test_windows_of_xvlm_grow_with_the_image(side, window_size):
    network = BACKBONES["xvlm_swin_base"].build((side, side, 3))
    assert network.window_size == window_size and network.mean_token
    assert network.get_layer("stage3_block1").side == side // 32


def test_pixels_of_xvlm_are_standardized_as_in_clip():
    photos = PHOTOS.astype("float32")
    received = numpy(BACKBONES["xvlm_swin_base"].preprocessing(ops.convert_to_tensor(photos)))
    np.testing.assert_allclose(received, (photos / 255 - CLIP_MEAN) / CLIP_STDDEV, atol=1e-4)


def test_a_small_stage_has_one_window_without_shift(tiny):
    blocks = [tiny.get_layer(f"stage1_block{i}") for i in (0, 1)]
    assert [block.side for block in blocks] == [3, 3] and [b.shift for b in blocks] == [0, 1]
    small = SwinTransformer(**TINY, window_size=4).get_layer("stage1_block1")  # of 5x4 tokens
    assert (small.side, small.shift) == (4, 0)
    assert small.attention.position_bias.embeddings.shape == (49, 2)


@pytest.mark.parametrize(
    "blocks, trained",
    [
        (0, set()),
        (1, {"stage1_block1", "norm"}),
        (3, {"stage0_block1", "stage0_merging", "stage1_block0", "stage1_block1", "norm"}),
    ],
)
def test_the_last_blocks_are_trained(blocks, trained):
    backbone = Backbone(SwinTransformer(**TINY, window_size=3), trainable_blocks=blocks)
    assert len(backbone.blocks) == 4
    layers = {layer.name for layer in backbone.net.layers if layer.trainable_weights}
    assert layers == trained


def test_all_weights_get_gradients_and_biases_no_decay():
    # A branch that is dropped for both photos has no gradient.
    tiny = SwinTransformer(**TINY, window_size=3, drop_path=0.0)
    backbone = Backbone(tiny, trainable_blocks="all", scale=1 / 128, offset=-1.0)
    model = keras.Sequential([backbone, keras.layers.Dense(1)])
    model.compile(keras.optimizers.SGD(0.1), "mse", run_eagerly=True)
    model.build((None, 40, 32, 3))
    before = {weight.path: numpy(weight) + 0 for weight in tiny.weights}
    model.train_on_batch(PHOTOS, np.ones((2, backbone.feature_shape[0], 1), np.float32))
    same = [w.path for w in tiny.weights if np.array_equal(before[w.path], numpy(w))]
    assert same == []
    exempt = no_decay_variables(tiny)
    tables = [w for w in tiny.weights if w.path.endswith("position_bias/embeddings")]
    assert len(tables) == 4 and all(id(table) in exempt for table in tables)


@pytest.mark.skipif(keras.backend.backend() != "tensorflow", reason="of TensorFlow")
def test_gradients_of_relative_position_biases_are_dense(tiny):
    import tensorflow as tf

    with tf.GradientTape() as tape:
        loss = ops.sum(tiny(PHOTOS.astype("float32") / 255) ** 2)
    gradients = tape.gradient(loss, [weight.value for weight in tiny.trainable_weights])
    assert all(isinstance(gradient, tf.Tensor) for gradient in gradients)


def test_residual_branches_are_dropped_in_training_only():
    network = SwinTransformer(**TINY, window_size=3, drop_path=0.9)
    images = PHOTOS.astype("float32") / 255
    kept = numpy(network(images))
    np.testing.assert_array_equal(kept, numpy(network(images)))
    assert np.abs(kept - numpy(network(images, training=True))).max() > 1e-3
    rates = [network.get_layer(f"stage{s}_block{i}").drop_path for s in (0, 1) for i in (0, 1)]
    np.testing.assert_allclose(rates, [0, 0.3, 0.6, 0.9])


def test_a_network_survives_get_config_and_json_and_keras_files(tiny, tmp_path):
    backbone = Backbone(tiny, trainable_blocks=2)
    config = json.loads(json.dumps(backbone.get_config()))
    copy = Backbone.from_config(config)
    assert copy.get_config() == config and copy.net.drop_path == 0.1
    copy.net.set_weights(tiny.get_weights())
    expected = numpy(backbone(PHOTOS))
    np.testing.assert_allclose(numpy(copy(PHOTOS)), expected, atol=1e-5)
    tiny.save(tmp_path / "tiny.keras")
    loaded = keras.saving.load_model(tmp_path / "tiny.keras")
    images = PHOTOS.astype("float32")
    np.testing.assert_allclose(numpy(loaded(images)), numpy(tiny(images)), atol=1e-5)


LOAD = """
import sys
import numpy as np
import effcap, keras

captioner = keras.saving.load_model(sys.argv[1])
images = np.load(sys.argv[2])
features = keras.ops.convert_to_numpy(captioner.encoder.backbone(images))
np.testing.assert_allclose(features, np.load(sys.argv[3]), atol=1e-5)
"""


@pytest.mark.slow
def test_a_new_process_loads_a_captioner_from_a_keras_file(tiny, tokenizer, tmp_path):
    hparams = tiny_hparams()
    hparams["encoder"]["backbone"] = Backbone(tiny, scale=1 / 255).get_config()
    captioner = Captioner.from_hparams(hparams, tokenizer)
    captioner.save(tmp_path / "captioner.keras")
    np.save(tmp_path / "images.npy", PHOTOS)
    np.save(tmp_path / "features.npy", numpy(captioner.encoder.backbone(PHOTOS)))
    files = [str(tmp_path / name) for name in ("captioner.keras", "images.npy", "features.npy")]
    subprocess.run([sys.executable, "-c", LOAD, *files], check=True, env=environment())


@pytest.mark.slow
def test_mixed_precision_changes_the_output_little(tiny):
    keras.config.set_dtype_policy("mixed_bfloat16")
    try:
        network = SwinTransformer(**TINY, window_size=3)
    finally:
        keras.config.set_dtype_policy("float32")
    network.set_weights(tiny.get_weights())
    images = PHOTOS.astype("float32") / 255
    received = numpy(ops.cast(network(images), "float32"))
    np.testing.assert_allclose(received, numpy(tiny(images)), atol=0.1)


@pytest.mark.parametrize(
    "arguments, message",
    [
        ({"depths": (2,)}, r"num_heads for each of the depths.*depths=\(2,\)"),
        ({"depths": (), "num_heads": ()}, r"depths=\(\)"),
        ({"window_size": 0}, "window_size=0"),
        ({"image_size": (0, 32)}, r"image_size=\(0, 32\)"),
        ({"num_heads": (1, 3)}, "hidden_dim=16, num_heads=3"),
        ({"drop_path": 1.0}, "drop_path=1.0"),
    ],
)
def test_bad_arguments_are_errors(arguments, message):
    with pytest.raises(ValueError, match=message):
        SwinTransformer(**{**TINY, **arguments})
