"""MSD_vgg, a convolutional network for three seconds of music.

J. Pons and X. Serra, "musicnn: Pre-trained convolutional neural networks for music audio tagging",
2019 (https://arxiv.org/abs/1909.06654). Trained on the Million Song Dataset to predict 50 tags.
"""

from __future__ import annotations

import keras
from keras import layers

from effcap.trainers.data.audio.spectrogram import NUM_MELS, WINDOW

CHANNELS = 128
NUM_FEATURES = 256
# (size, strides) of the five max-pooling layers, each over (time, mel bands). The code of musicnn
# 0.1.0 builds other layers than the graph stored with MSD_vgg's weights ("trained").
POOLINGS = {
    "trained": (
        ((4, 1), (4, 1)),
        ((1, 4), (1, 4)),
        ((2, 2), (2, 2)),
        ((2, 2), (2, 2)),
        ((4, 4), (4, 4)),
    ),
    "musicnn": (
        ((4, 1), (2, 2)),
        ((2, 2), (2, 2)),
        ((2, 2), (2, 2)),
        ((2, 2), (2, 2)),
        ((4, 4), (4, 4)),
    ),
}


def MSDVGG(pooling: str = "trained") -> keras.Model:
    """Creates MSD_vgg up to its last pooling layer, `pool5`, with random weights.

    It has five stages of convolution, ReLU, batch normalization and max-pooling. Dropout and the
    layer that predicts tags are left out.

    Args:
        pooling: "trained" (default), the pooling that the weights were trained with, or "musicnn",
            the pooling in the code of the package musicnn, which PlayNTell used.

    Returns:
        A model from log-mel windows (N, 187, 96) to features (N, 256): 128 channels of the first
        and 128 of the second half of the window.

    Raises:
        ValueError: `pooling` is neither.
    """
    if pooling not in POOLINGS:
        raise ValueError(
            f"Expected pooling out of {', '.join(POOLINGS)}. Received: pooling={pooling!r}"
        )
    windows = keras.Input((WINDOW, NUM_MELS), name="log_mel")
    x = layers.Reshape((WINDOW, NUM_MELS, 1), name="one_channel")(windows)  # (N,187,96,1)
    x = _norm("bn0")(x)
    for number, (size, strides) in enumerate(POOLINGS[pooling], start=1):
        x = layers.Conv2D(
            CHANNELS,
            3,
            padding="same",
            activation="relu",
            data_format="channels_last",
            name=f"conv{number}",
        )(x)  # (N,t,m,128)
        x = _norm(f"bn{number}")(x)
        pool = layers.MaxPooling2D(size, strides, data_format="channels_last", name=f"pool{number}")
        x = pool(x)  # (N,t',m',128), after the last one (N,2,1,128)
    features = layers.Reshape((NUM_FEATURES,), name="features")(x)  # (N,256)
    return keras.Model(windows, features, name="msd_vgg")


def _norm(name: str) -> keras.layers.Layer:
    return layers.BatchNormalization(axis=-1, momentum=0.99, epsilon=1e-3, name=name)
