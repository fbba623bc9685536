"""Inputs of an exported captioner, which Keras knows only after a call unless they are given."""

from __future__ import annotations

from typing import Any

import keras


def export_signature(encoder: Any, segments: bool = False) -> list[dict[str, keras.InputSpec]]:
    """Returns the `input_signature` of a captioner for `keras.Model.export`.

    The number of rows, of tokens and of memory positions is free; the height and width of images
    is the encoder's.

    Args:
        encoder: the captioner's encoder.
        segments: include "segments", for rows with several captions. Default False.

    Returns:
        A list of one dict: shape and dtype of each input of the encoder ("images" for an image
        encoder), of "tokens" and, with `segments=True`, of "segments".
    """
    specs = encoder_signature(encoder)
    for key in ("tokens", "segments") if segments else ("tokens",):
        specs[key] = keras.InputSpec("int32", (None, None), name=key)
    return [specs]


def encoder_signature(encoder: Any) -> dict[str, keras.InputSpec]:
    """Returns shape and dtype of each input of an encoder, as in `export_signature`."""
    shapes = _input_shapes(encoder)
    return {key: keras.InputSpec("float32", shape, name=key) for key, shape in shapes.items()}


def _input_shapes(encoder: Any) -> dict[str, tuple[int | None, ...]]:
    if "images" in encoder.input_keys:
        return {"images": (None, *encoder.image_size, 3)}
    if "regions" in encoder.input_keys:
        return {"regions": (None, None, encoder.feature_dim)}
    return {key: (None, None, width) for key, width in encoder.modalities.items()}
