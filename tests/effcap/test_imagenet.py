"""Tests of effcap.weights.imagenet: donors built by keras.applications, and files of theirs."""

from __future__ import annotations

import keras
import numpy as np
import pytest
from helpers.captioners import numpy, tiny_network
from keras import ops

from effcap.backbones.backbone import Backbone
from effcap.backbones.registry import MEAN, STDDEV
from effcap.weights.imagenet import copy_weights, load_imagenet

PHOTOS = np.random.default_rng(0).integers(0, 256, (1, 32, 32, 3)).astype("float32")


def normalization(model: keras.Model) -> keras.layers.Normalization:
    return next(x for x in model.layers if isinstance(x, keras.layers.Normalization))


def b0(variance=None) -> keras.Model:
    """A B0 of keras.applications, whose normalization has that variance."""
    keras.utils.set_random_seed(3)
    donor = keras.applications.EfficientNetB0(
        include_top=False, weights=None, input_shape=(32, 32, 3)
    )
    if variance is not None:
        layer = normalization(donor)
        layer.adapt_mean.assign(MEAN)
        layer.adapt_variance.assign(variance)
        layer.finalize_state()
    return donor


@pytest.fixture(scope="module")
def backbone() -> Backbone:
    return Backbone("efficientnet_b0", (32, 32))


def test_backbone_gives_what_its_donor_gives(backbone):
    donor = b0(np.square(STDDEV))
    copy_weights(donor, backbone)
    expected = numpy(donor(PHOTOS, training=False)).reshape(1, 1, -1)
    np.testing.assert_allclose(numpy(backbone(PHOTOS)), expected, rtol=1e-3, atol=1e-5)


def test_donor_that_preprocesses_otherwise_is_refused(backbone):
    with pytest.raises(ValueError, match="efficientnetb0 to preprocess pixels as efficientnet_b0"):
        copy_weights(b0(), backbone)


def test_donor_of_another_architecture_is_refused_naming_layers(backbone):
    before = [numpy(weight) + 0 for weight in backbone.net.weights]
    with pytest.raises(ValueError, match="Received: tiny_network.*lacks.*stem_conv.*block1a_bn"):
        copy_weights(tiny_network(), backbone)
    for weight, kept in zip(backbone.net.weights, before, strict=True):
        np.testing.assert_array_equal(numpy(weight), kept)


@pytest.fixture(scope="module")
def published_file(tmp_path_factory):
    """A file as keras.applications downloads for V1: with deviations in place of variances."""
    path = tmp_path_factory.mktemp("imagenet") / "efficientnetb0_notop.h5"
    donor = b0(STDDEV)
    donor.save(path)
    return path, donor


def published_features(donor: keras.Model) -> np.ndarray:
    """What the published weights are meant to give: (x / 255 - mean) / deviation goes in."""
    layer = normalization(donor)
    headless = keras.Model(layer.output, donor.output)
    pixels = (PHOTOS / 255 - np.array(MEAN)) / np.array(STDDEV)
    return numpy(headless(ops.convert_to_tensor(pixels, "float32"), training=False))


def test_published_file_given_by_path_is_understood(backbone, published_file):
    path, donor = published_file
    load_imagenet(backbone, path)
    expected = published_features(donor).reshape(1, 1, -1)
    np.testing.assert_allclose(numpy(backbone(PHOTOS)), expected, rtol=1e-3, atol=1e-5)


def test_published_file_that_keras_downloads_is_understood(backbone, published_file, monkeypatch):
    from keras.src.utils import file_utils

    path, donor = published_file
    monkeypatch.setattr(file_utils, "get_file", lambda *arguments, **named: str(path))
    for weight in backbone.net.weights:
        weight.assign(ops.zeros_like(weight))
    load_imagenet(backbone)
    expected = published_features(donor).reshape(1, 1, -1)
    np.testing.assert_allclose(numpy(backbone(PHOTOS)), expected, rtol=1e-3, atol=1e-5)


def test_failed_download_says_what_to_do(backbone, monkeypatch):
    from keras.src.utils import file_utils

    def fails(*arguments, **named):
        raise Exception("URL fetch failure on https://example.org: None -- no network")

    monkeypatch.setattr(file_utils, "get_file", fails)
    with pytest.raises(ConnectionError, match="efficientnet_b0.*--backbone-weights"):
        load_imagenet(backbone)


def test_missing_file_is_named(backbone):
    with pytest.raises(FileNotFoundError, match="efficientnet_b0.*nowhere.h5"):
        load_imagenet(backbone, "nowhere.h5")


def test_network_of_ones_own_is_refused():
    with pytest.raises(ValueError, match="brings its own weights. Received: tiny_network"):
        load_imagenet(Backbone(tiny_network()))
