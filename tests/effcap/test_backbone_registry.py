"""Tests of effcap.backbones.registry, against the networks of keras.applications."""

from __future__ import annotations

import keras
import numpy as np
import pytest
from keras import ops

from effcap.backbones.registry import BACKBONES, IMAGENET_MEAN, IMAGENET_STDDEV
from helpers.captioners import numpy

LIGHT = ("efficientnet_b0", "efficientnet_v2_b0", "efficientnet_lite0")
# Channels of the features and native size, as published.
PUBLISHED = {
    "efficientnet_b0": (1280, 224),
    "efficientnet_b1": (1280, 240),
    "efficientnet_b2": (1408, 260),
    "efficientnet_b3": (1536, 300),
    "efficientnet_b4": (1792, 380),
    "efficientnet_b5": (2048, 456),
    "efficientnet_b6": (2304, 528),
    "efficientnet_b7": (2560, 600),
    "efficientnet_v2_b0": (1280, 224),
    "efficientnet_v2_b1": (1280, 240),
    "efficientnet_v2_b2": (1408, 260),
    "efficientnet_v2_b3": (1536, 300),
    "efficientnet_v2_s": (1280, 384),
    "efficientnet_v2_m": (1280, 480),
    "efficientnet_v2_l": (1280, 480),
    "efficientnet_lite0": (1280, 224),
    "efficientnet_lite1": (1280, 240),
    "efficientnet_lite2": (1280, 260),
    "swin_tiny": (768, 224),
    "swin_small": (768, 224),
    "swin_base": (1024, 224),
    "swin_base_384": (1024, 384),
    "swin_large": (1536, 224),
    "swin_large_384": (1536, 384),
    "xvlm_swin_base": (1024, 384),
}
CLIP = {"clip_vit_b32": 224, "clip_vit_b16": 224, "clip_rn50x4": 288}  # native size
CLIP |= {"clip_vit_b32_gelu": 224, "clip_vit_b16_gelu": 224}
VIT = {"vit_b16": 224, "blip_vit_b16": 384, "blip_vit_l16": 384}


def test_all_networks_are_registered():
    sides = {name: side for name, (_, side) in PUBLISHED.items()} | CLIP | VIT
    assert set(BACKBONES) == set(sides)
    for name, side in sides.items():
        assert BACKBONES[name].image_size == (side, side)


@pytest.mark.parametrize(
    "name",
    [
        name if name in LIGHT else pytest.param(name, marks=pytest.mark.exhaustive)
        for name in PUBLISHED
    ],
)
def test_networks_have_neither_classifier_nor_preprocessing(name):
    model = BACKBONES[name].build((64, 96, 3))
    tokens = 7 if name.startswith("xvlm") else 6  # with their mean in front
    shape = (tokens,) if "swin" in name else (2, 3)
    assert tuple(model.output.shape) == (None, *shape, PUBLISHED[name][0])
    preprocessing = (keras.layers.Rescaling, keras.layers.Normalization)
    assert not any(isinstance(layer, preprocessing) for layer in model.layers)
    keras.backend.clear_session()


def set_imagenet_statistics(model: keras.Model) -> None:
    """Sets the statistics that a V1 model has only with weights="imagenet"."""
    layer = next(x for x in model.layers if isinstance(x, keras.layers.Normalization))
    layer.mean = ops.reshape(ops.convert_to_tensor(IMAGENET_MEAN), (1, 1, 1, 3))
    layer.variance = ops.reshape(ops.convert_to_tensor(IMAGENET_STDDEV) ** 2, (1, 1, 1, 3))


@pytest.mark.slow
@pytest.mark.parametrize(
    "name",
    [*LIGHT[:2], pytest.param("efficientnet_v2_s", marks=pytest.mark.slow)],
)
def test_networks_match_keras_applications_with_its_preprocessing(name):
    spec = BACKBONES[name]
    theirs = spec.application(include_top=False, weights=None, input_shape=(32, 32, 3))
    if "v2" not in name:
        set_imagenet_statistics(theirs)
    ours = spec.build((32, 32, 3))
    sources = {layer.name: layer for layer in theirs.layers}
    rng = np.random.default_rng(0)
    for layer in ours.layers:
        if layer.weights:  # batch statistics too, so that no mistake cancels
            values = [w + rng.uniform(0, 0.1, w.shape) * (w.ndim == 1) for w in layer.get_weights()]
            layer.set_weights(values)
            sources[layer.name].set_weights(values)
    photos = rng.integers(0, 256, (2, 32, 32, 3)).astype("float32")
    received = numpy(ours(spec.preprocessing(ops.convert_to_tensor(photos)), training=False))
    expected = numpy(theirs(photos, training=False))
    assert expected.std() > 0
    np.testing.assert_allclose(received, expected, rtol=1e-3, atol=1e-4 * np.abs(expected).max())
