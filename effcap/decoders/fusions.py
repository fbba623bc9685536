"""Registry of fusions by `decoder.fusion.kind` in hparams."""

from __future__ import annotations

from typing import Any

import keras

from effcap.decoders.cross import CrossFusion
from effcap.decoders.gated import MeshedFusion, ModalityFusion
from effcap.decoders.prefix import PrefixFusion

FUSIONS: dict[str, type[keras.layers.Layer]] = {
    "cross": CrossFusion,
    "meshed": MeshedFusion,
    "modalities": ModalityFusion,
    "prefix": PrefixFusion,
}


def create_fusion(kind: str | None, **arguments: Any) -> keras.layers.Layer:
    """Creates the fusion layer of a kind.

    Raises:
        ValueError: there is no such kind.
    """
    if kind not in FUSIONS:
        raise ValueError(
            f"Expected a fusion kind out of {sorted(FUSIONS)}. Received: fusion.kind={kind!r}"
        )
    return FUSIONS[kind](**arguments)
