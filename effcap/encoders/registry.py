"""Registry of encoders by `encoder.kind` in hparams."""

from __future__ import annotations

import keras

from effcap.encoders.image import ImageEncoder
from effcap.encoders.modalities import ModalityEncoder
from effcap.encoders.regions import RegionEncoder

ENCODERS: dict[str, type[keras.layers.Layer]] = {
    "image": ImageEncoder,
    "regions": RegionEncoder,
    "modalities": ModalityEncoder,
}
