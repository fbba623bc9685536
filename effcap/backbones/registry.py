"""The vision networks known by name, each with its size and its preprocessing."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial

import keras
from keras import ops

from effcap.backbones import efficientnet_lite as lite

MEAN = (0.485, 0.456, 0.406)  # ImageNet's, of pixels 0..1
STDDEV = (0.229, 0.224, 0.225)


@dataclass(frozen=True)
class Preprocessing:
    """pixels * scale + offset; each a number, or one number per channel."""

    scale: float | Sequence[float] = 1.0
    offset: float | Sequence[float] = 0.0

    def __call__(self, images):
        scale = ops.convert_to_tensor(self.scale, dtype=images.dtype)
        offset = ops.convert_to_tensor(self.offset, dtype=images.dtype)
        return images * scale + offset


@dataclass(frozen=True)
class Network:
    """How to build a network without its classifier: `build((h, w, 3)) -> keras.Model`."""

    build: Callable[[tuple[int, int, int]], keras.Model]
    image_size: tuple[int, int]
    preprocessing: Preprocessing
    application: Callable | None = None  # of keras.applications, the source of ImageNet weights


# keras.applications preprocesses inside the model, and differently for V1 depending on `weights`.
# Here the network begins after its preprocessing, so that both builds see the same pixels.
STANDARDIZE = Preprocessing(
    scale=tuple(1 / (255 * stddev) for stddev in STDDEV),
    offset=tuple(-mean / stddev for mean, stddev in zip(MEAN, STDDEV, strict=True)),
)
MINUS_ONE_TO_ONE = Preprocessing(scale=1 / 128, offset=-1.0)


def headless(application: Callable, shape: tuple[int, int, int]) -> keras.Model:
    """A network of keras.applications from its stem on, without preprocessing and classifier."""
    model = application(include_top=False, weights=None, input_shape=shape)
    preprocessing = (keras.layers.Rescaling, keras.layers.Normalization)
    first = max(i for i, layer in enumerate(model.layers) if isinstance(layer, preprocessing))
    return keras.Model(model.layers[first].output, model.output, name=model.name)


def _of_keras(application: Callable, side: int, preprocessing: Preprocessing) -> Network:
    build = partial(headless, application)
    return Network(build, (side, side), preprocessing, application)


def _of_lite(variant: str) -> Network:
    side = lite.VARIANTS[variant].image_size

    def build(shape: tuple[int, int, int]) -> keras.Model:
        return lite.EfficientNetLite(variant, image_size=shape[:2])

    return Network(build, (side, side), Preprocessing(lite.SCALE, lite.OFFSET))


_SIDES = {"B0": 224, "B1": 240, "B2": 260, "B3": 300, "B4": 380, "B5": 456, "B6": 528, "B7": 600}
_SIDES_V2 = {"B0": 224, "B1": 240, "B2": 260, "B3": 300, "S": 384, "M": 480, "L": 480}

NETWORKS: dict[str, Network] = {
    f"efficientnet_{size.lower()}": _of_keras(
        getattr(keras.applications, f"EfficientNet{size}"), side, STANDARDIZE
    )
    for size, side in _SIDES.items()
}
NETWORKS |= {
    f"efficientnet_v2_{size.lower()}": _of_keras(
        getattr(keras.applications, f"EfficientNetV2{size}"),
        side,
        STANDARDIZE if size.startswith("B") else MINUS_ONE_TO_ONE,
    )
    for size, side in _SIDES_V2.items()
}
NETWORKS |= {f"efficientnet_{variant}": _of_lite(variant) for variant in lite.VARIANTS}
