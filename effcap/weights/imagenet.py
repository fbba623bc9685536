"""Loads ImageNet weights into a backbone."""

from __future__ import annotations

from os import PathLike
from pathlib import Path
from typing import Any

import keras
import numpy as np

from effcap.backbones.backbone import Backbone
from effcap.backbones.efficientnet_lite import VARIANTS
from effcap.backbones.registry import BACKBONES, IMAGENET_STDDEV
from effcap.weights.lite_imagenet import load_lite_imagenet

PREPROCESSING = (keras.layers.Rescaling, keras.layers.Normalization)
TOLERANCE = 1e-3


def load_imagenet(backbone: Backbone, path: str | PathLike | None = None) -> None:
    """Fills a backbone that is known by name with weights trained on ImageNet.

    EfficientNet and EfficientNetV2 are taken from keras.applications, which downloads them once,
    EfficientNet-Lite from the packages of the extra `lite`.

    Args:
        backbone: its `network` must be a name.
        path: file or folder of the weights (default: the source above).

    Raises:
        FileNotFoundError: `path` does not exist, or the weights of EfficientNet-Lite are not
            installed.
        ConnectionError: the weights cannot be downloaded.
        ValueError: the backbone was made from a Keras model, which has weights of its own, or the
            weights do not fit.
    """
    name = backbone.network
    if not isinstance(name, str):
        raise ValueError(
            "Expected a backbone known by name; one made from a Keras model has weights of its "
            f"own. Received: {backbone.net.name}"
        )
    if name.removeprefix("efficientnet_") in VARIANTS:
        load_lite_imagenet(backbone.net, path)
        return
    if path is not None and not Path(path).is_file():
        raise FileNotFoundError(f"No file with the weights of {name} at {path}")
    build = BACKBONES[name].application
    assert build is not None  # only EfficientNet-Lite has none
    try:
        application = build(include_top=False, weights="imagenet" if path is None else str(path))
    except Exception as error:  # Keras raises a bare Exception when a download fails
        if path is None and "URL fetch failure" in str(error):
            raise ConnectionError(
                f"The ImageNet weights of {name} could not be downloaded: {error}. Pass their file "
                "with --backbone-weights, or start from random weights with "
                "--backbone-weights none"
            ) from error
        raise
    copy_weights(application, backbone)


def copy_weights(application: keras.Model, backbone: Backbone) -> None:
    """Copies the weights of a network of keras.applications into a backbone, by layer name.

    The network's preprocessing layers are not copied: the backbone's own must be equivalent.

    Args:
        application: a network with weights and preprocessing.
        backbone: a backbone of the same architecture.

    Raises:
        ValueError: layers do not fit, which the message names, or the preprocessing differs.
    """
    sources = {x.name: x for x in application.layers if not isinstance(x, PREPROCESSING)}
    targets = {layer.name: layer for layer in backbone.net.layers if layer.weights}
    missing = [
        name
        for name, layer in targets.items()
        if name not in sources
        or [w.shape for w in sources[name].weights] != [w.shape for w in layer.weights]
    ]
    unexpected = [name for name, x in sources.items() if x.weights and name not in targets]
    if missing or unexpected:
        raise ValueError(
            f"{application.name} does not have the weights of {backbone.network}. Missing layers: "
            f"{', '.join(missing) or 'none'}. Unexpected layers: {', '.join(unexpected) or 'none'}"
        )
    check_preprocessing(application, backbone)
    for name, layer in targets.items():
        layer.set_weights(sources[name].get_weights())


def check_preprocessing(application: keras.Model, backbone: Backbone) -> None:
    """Checks that a backbone preprocesses pixels as a network of keras.applications does.

    Raises:
        ValueError: they differ by more than 1e-3.
    """
    layers = [layer for layer in application.layers if isinstance(layer, PREPROCESSING)]
    pixels = np.linspace(0, 255, 3 * 16, dtype=np.float32).reshape(1, 4, 4, 3)
    expected: Any = pixels
    for layer in layers:
        expected = layer(expected)
    last = layers[-1] if layers else None
    if isinstance(last, keras.layers.Normalization) and np.allclose(last.variance, IMAGENET_STDDEV):
        # The published V1 files store deviations as variances. keras.applications corrects this
        # with one more Rescaling, but only for weights="imagenet", not for a path.
        expected = expected / np.sqrt(np.array(IMAGENET_STDDEV, np.float32))
    received = backbone.preprocessing(keras.ops.convert_to_tensor(pixels))
    difference = float(keras.ops.max(keras.ops.abs(expected - received)))
    if difference > TOLERANCE:
        raise ValueError(
            f"Expected {application.name} to preprocess pixels as {backbone.network} does. "
            f"Received: a difference of {difference:.3g}"
        )
