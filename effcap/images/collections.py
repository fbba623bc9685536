"""Distinguishes one photo from a collection of photos."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping, Set
from typing import Any

import numpy as np
from PIL import Image

SINGLE = (str, os.PathLike, bytes, bytearray, memoryview, Image.Image)


def as_photos(photos: Any) -> tuple[Iterable[Any], bool]:
    """Returns photos to iterate over, and whether they were given as a single photo.

    Args:
        photos: a photo as in `load_photo`, a batch (B, h, w, 3), or any iterable of photos, such as
            a list, a generator, `dict.values()`, a pandas Series or an array of paths.

    Raises:
        ValueError: the collection is a dict, a set or a table, which are no lists of photos.
    """
    if isinstance(photos, SINGLE) or hasattr(photos, "read"):
        return [photos], True
    if isinstance(photos, Mapping | Set) or hasattr(photos, "columns"):
        kind = type(photos).__name__
        advice = "its values()" if isinstance(photos, Mapping) else "a list"
        advice = "one of its columns" if hasattr(photos, "columns") else advice
        raise ValueError(f"Expected a photo, or photos in order. Received: a {kind}; pass {advice}")
    if hasattr(photos, "__array__"):
        num_axes = len(np.shape(photos))
        if num_axes in (0, 2, 3):
            return [photos], True
        return (photos if num_axes == 1 else np.asarray(photos)), False
    is_collection = isinstance(photos, Iterable)
    return (photos if is_collection else [photos]), not is_collection
