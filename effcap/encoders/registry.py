"""Registry of encoders by `encoder.kind` in hparams."""

from __future__ import annotations

import keras

from effcap.encoders.image import ImageEncoder
from effcap.encoders.modalities import ModalityEncoder
from effcap.encoders.regions import RegionEncoder
from effcap.encoders.unprojected import BackboneEncoder

ENCODERS: dict[str, type[keras.layers.Layer]] = {
    "image": ImageEncoder,
    "backbone": BackboneEncoder,
    "regions": RegionEncoder,
    "modalities": ModalityEncoder,
}
