"""Tests of effcap.weights.imagenet with networks and files of keras.applications."""

from __future__ import annotations

import keras
import numpy as np
import pytest
from keras import ops

from effcap.backbones.backbone import Backbone
from effcap.backbones.registry import IMAGENET_MEAN, IMAGENET_STDDEV
from effcap.weights.imagenet import copy_weights, load_imagenet
from helpers.captioners import numpy, tiny_network

PHOTOS = np.random.default_rng(0).integers(0, 256, (1, 32, 32, 3)).astype("float32")


def normalization(model: keras.Model) -> keras.layers.Normalization:
    return next(x for x in model.layers if isinstance(x, keras.layers.Normalization))


def b0(variance=None) -> keras.Model:
    """Returns a B0 of keras.applications with the given variance in its normalization."""
    keras.utils.set_random_seed(3)
    source = keras.applications.EfficientNetB0(
        include_top=False, weights=None, input_shape=(32, 32, 3)
    )
    if variance is not None:
        layer = normalization(source)
        layer.adapt_mean.assign(IMAGENET_MEAN)
        layer.adapt_variance.assign(variance)
        layer.finalize_state()
    return source


@pytest.fixture(scope="module")
def backbone() -> Backbone:
    return Backbone("efficientnet_b0", (32, 32))


def test_a_backbone_matches_the_source_of_its_weights(backbone):
    source = b0(np.square(IMAGENET_STDDEV))
    copy_weights(source, backbone)
    expected = numpy(source(PHOTOS, training=False)).reshape(1, 1, -1)
    np.testing.assert_allclose(numpy(backbone(PHOTOS)), expected, rtol=1e-3, atol=1e-5)


def test_a_source_with_other_preprocessing_is_an_error(backbone):
    with pytest.raises(ValueError, match="efficientnetb0 to preprocess pixels as efficientnet_b0"):
        copy_weights(b0(), backbone)


def test_a_source_of_another_architecture_is_an_error_with_layer_names(backbone):
    before = [numpy(weight) + 0 for weight in backbone.net.weights]
    with pytest.raises(
        ValueError,
        match="tiny_network does not have the weights.*Missing layers: stem_conv.*block1a_bn",
    ):
        copy_weights(tiny_network(), backbone)
    for weight, kept in zip(backbone.net.weights, before, strict=True):
        np.testing.assert_array_equal(numpy(weight), kept)


@pytest.fixture(scope="module")
def published_file(tmp_path_factory):
    """Returns a file like those published for V1, which store deviations as variances."""
    path = tmp_path_factory.mktemp("imagenet") / "efficientnetb0_notop.h5"
    source = b0(IMAGENET_STDDEV)
    source.save(path)
    return path, source


def published_features(source: keras.Model) -> np.ndarray:
    """Computes the intended features, of (pixels / 255 - mean) / deviation."""
    layer = normalization(source)
    headless = keras.Model(layer.output, source.output)
    pixels = (PHOTOS / 255 - np.array(IMAGENET_MEAN)) / np.array(IMAGENET_STDDEV)
    return numpy(headless(ops.convert_to_tensor(pixels, "float32"), training=False))


def test_a_published_file_loads_from_its_path(backbone, published_file):
    path, source = published_file
    load_imagenet(backbone, path)
    expected = published_features(source).reshape(1, 1, -1)
    np.testing.assert_allclose(numpy(backbone(PHOTOS)), expected, rtol=1e-3, atol=1e-5)


def test_a_published_file_loads_when_keras_downloads_it(backbone, published_file, monkeypatch):
    from keras.src.utils import file_utils

    path, source = published_file
    monkeypatch.setattr(file_utils, "get_file", lambda *arguments, **named: str(path))
    for weight in backbone.net.weights:
        weight.assign(ops.zeros_like(weight))
    load_imagenet(backbone)
    expected = published_features(source).reshape(1, 1, -1)
    np.testing.assert_allclose(numpy(backbone(PHOTOS)), expected, rtol=1e-3, atol=1e-5)


def test_a_failed_download_names_the_alternatives(backbone, monkeypatch):
    from keras.src.utils import file_utils

    def fails(*arguments, **named):
        raise Exception("URL fetch failure on https://example.org: None -- no network")

    monkeypatch.setattr(file_utils, "get_file", fails)
    with pytest.raises(ConnectionError, match="efficientnet_b0.*--backbone-weights"):
        load_imagenet(backbone)


def test_a_missing_file_is_named(backbone):
    with pytest.raises(FileNotFoundError, match="efficientnet_b0.*nowhere.h5"):
        load_imagenet(backbone, "nowhere.h5")


def test_a_backbone_from_a_keras_model_is_an_error():
    with pytest.raises(ValueError, match="weights of its own. Received: tiny_network"):
        load_imagenet(Backbone(tiny_network()))
