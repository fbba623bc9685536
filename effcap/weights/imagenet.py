"""ImageNet weights into a backbone."""

from __future__ import annotations

from os import PathLike
from pathlib import Path

import keras
import numpy as np

from effcap.backbones.backbone import Backbone
from effcap.backbones.efficientnet_lite import VARIANTS
from effcap.backbones.registry import NETWORKS, STDDEV
from effcap.weights.lite_imagenet import load_lite_imagenet


def load_imagenet(backbone: Backbone, path: str | PathLike | None = None) -> None:
    """Fills a backbone that was built by name with weights trained on ImageNet.

    EfficientNet and EfficientNetV2 come from keras.applications, which downloads them once;
    EfficientNet-Lite from the packages of the extra `lite`.

    Args:
        backbone: one whose `network` is a name.
        path: a file or folder with the weights, in place of the usual source.

    Raises:
        FileNotFoundError: where `path` is not there, or weights of EfficientNet-Lite are not
            installed.
        ConnectionError: weights that cannot be downloaded.
        ValueError: for a backbone made from a model, which brings its own weights, or for weights
            that do not fit.
    """
    name = backbone.network
    if not isinstance(name, str):
        raise ValueError(
            "Expected a backbone built by name; one made from a Keras model brings its own "
            f"weights. Received: {backbone.net.name}"
        )
    if name.removeprefix("efficientnet_") in VARIANTS:
        load_lite_imagenet(backbone.net, path)
        return
    if path is not None and not Path(path).is_file():
        raise FileNotFoundError(f"Expected a file with the weights of {name}. Received: {path}")
    try:
        donor = NETWORKS[name].application(
            include_top=False, weights="imagenet" if path is None else str(path)
        )
    except Exception as error:  # Keras raises a bare Exception when a download fails
        if path is None and "URL fetch failure" in str(error):
            raise ConnectionError(
                f"The ImageNet weights of {name} could not be downloaded: {error}. Give the file "
                "itself with --backbone-weights, or train from random weights with "
                "--backbone-weights none."
            ) from error
        raise
    copy_weights(donor, backbone)


def copy_weights(donor: keras.Model, backbone: Backbone) -> None:
    """Copies the weights of a network of keras.applications, layer by layer, by name.

    The donor's preprocessing stays behind: the backbone has its own, which must do the same.

    Raises:
        ValueError: naming the layers that do not fit, or when the preprocessing differs.
    """
    preprocessing = (keras.layers.Rescaling, keras.layers.Normalization)
    given = {layer.name: layer for layer in donor.layers if not isinstance(layer, preprocessing)}
    wanted = {layer.name: layer for layer in backbone.net.layers if layer.weights}
    unfit = [
        name
        for name, layer in wanted.items()
        if name not in given
        or [w.shape for w in given[name].weights] != [w.shape for w in layer.weights]
    ]
    left = [name for name, layer in given.items() if layer.weights and name not in wanted]
    if unfit or left:
        raise ValueError(
            f"Expected the weights of {backbone.network}. Received: {donor.name}, which "
            f"lacks {', '.join(unfit) or 'nothing'} and has {', '.join(left) or 'nothing'} over"
        )
    check_preprocessing(donor, backbone)
    for name, layer in wanted.items():
        layer.set_weights(given[name].get_weights())


def check_preprocessing(donor: keras.Model, backbone: Backbone) -> None:
    """ValueError unless the donor's preprocessing gives what the backbone's gives, to 1e-3."""
    layers = [
        layer
        for layer in donor.layers
        if isinstance(layer, keras.layers.Rescaling | keras.layers.Normalization)
    ]
    pixels = np.linspace(0, 255, 3 * 16, dtype=np.float32).reshape(1, 4, 4, 3)
    expected = pixels
    for layer in layers:
        expected = layer(expected)
    last = layers[-1] if layers else None
    if isinstance(last, keras.layers.Normalization) and np.allclose(last.variance, STDDEV):
        # The published V1 files hold deviations in place of variances. keras.applications makes up
        # for it with one more Rescaling, but only under weights="imagenet", not for a path.
        expected = expected / np.sqrt(np.array(STDDEV, np.float32))
    received = backbone.preprocessing(keras.ops.convert_to_tensor(pixels))
    difference = float(keras.ops.max(keras.ops.abs(expected - received)))
    if difference > 1e-3:
        raise ValueError(
            f"Expected {donor.name} to preprocess pixels as {backbone.network} does. "
            f"Received: a difference of {difference:.3g}"
        )
