"""Pixel values: conversion of arrays and of every Pillow mode to 8-bit RGB."""

from __future__ import annotations

import numpy as np
from PIL import Image

from effcap.images.unreadable_photo import UnreadablePhoto

WHITE = (255, 255, 255)
SIXTEEN_BITS = ("I", "I;16", "I;16L", "I;16B", "I;16N")


def to_rgb(image: Image.Image, name: str) -> Image.Image:
    """Converts an image to 8-bit RGB, composited on white where it is transparent.

    Raises:
        UnreadablePhoto: values are out of range; `name` names the photo.
    """
    if image.mode in SIXTEEN_BITS:
        values = np.asarray(image)  # (h, w)
        opaque = np.ones(values.shape, bool)
        transparency = image.info.get("transparency")  # the gray value that means transparent
        if isinstance(transparency, int):  # conversion to gray may leave a color there
            opaque = values != transparency
        array = _sixteen_to_eight_bits(values, opaque, name)
        array[~opaque] = 255
        return Image.fromarray(array).convert("RGB")
    if image.mode == "F":
        return Image.fromarray(_floats_to_bytes(np.asarray(image), name)).convert("RGB")
    if image.has_transparency_data:
        image = image.convert("RGBA")
        background = Image.new("RGBA", image.size, WHITE)
        return Image.alpha_composite(background, image).convert("RGB")
    return image if image.mode == "RGB" else image.convert("RGB")


def from_array(array: np.ndarray, name: str) -> Image.Image:
    """Converts an array (h, w), (h, w, 1), (h, w, 3) or (h, w, 4) to an image.

    Raises:
        UnreadablePhoto: shape, dtype or values are wrong; `name` names the photo.
    """
    received = f"Received: an array of shape {array.shape} and dtype {array.dtype}"
    gray = array.ndim == 2 or (array.ndim == 3 and array.shape[2] == 1)
    if not (gray or (array.ndim == 3 and array.shape[2] in (3, 4))) or 0 in array.shape:
        raise UnreadablePhoto(
            name, f"expected shape (h, w), (h, w, 1), (h, w, 3) or (h, w, 4). {received}"
        )
    if array.dtype != np.uint8:
        if "float" not in array.dtype.name:  # np.floating does not include bfloat16
            advice = _dtype_advice(array)
            raise UnreadablePhoto(name, f"expected uint8, or floats in 0..255{advice}. {received}")
        array = _floats_to_bytes(array, name)
    if gray:
        array = array.reshape(array.shape[:2])  # (h, w, 1) -> (h, w)
    return Image.fromarray(np.ascontiguousarray(array))


def _dtype_advice(array: np.ndarray) -> str:
    if array.dtype == bool:
        return '; for black and white, use np.asarray(photo).astype("uint8") * 255'
    if array.dtype.kind in "iu" and array.min() >= 0:
        if array.max() <= 255:
            return '; these values fit in uint8, so use np.asarray(photo).astype("uint8")'
        if array.max() <= 65535:
            return "; for values of 16 bits, use np.asarray(photo) / 257"
    return ""


def _floats_to_bytes(array: np.ndarray, name: str) -> np.ndarray:
    if not np.issubdtype(array.dtype, np.floating):
        array = array.astype(np.float32)  # bfloat16 and narrower
    low, high = float(array.min()), float(array.max())
    received = f"Received: values from {low:g} to {high:g}"
    if not (low >= 0 and high <= 255):  # also for NaN
        raise UnreadablePhoto(name, f"expected floats in 0..255. {received}")
    if 0 < high <= 1:
        raise UnreadablePhoto(
            name,
            f"expected floats in 0..255; these look like 0..1, so multiply them by 255. {received}",
        )
    return np.rint(array).astype(np.uint8)


def _sixteen_to_eight_bits(array: np.ndarray, opaque: np.ndarray, name: str) -> np.ndarray:
    low, high = int(array.min()), int(array.max())
    received = f"Received: values from {low} to {high}"
    if low < 0 or high > 65535:
        raise UnreadablePhoto(name, f"expected at most 16 bits per channel. {received}")
    if 0 < array.max(initial=0, where=opaque) <= 255:
        raise UnreadablePhoto(
            name,
            "expected gray values of 16 bits, 0..65535; these look like 8 bits, so use "
            f'Image.fromarray(np.asarray(image).astype("uint8")). {received}',
        )
    return ((array.astype(np.uint32) + 128) // 257).astype(np.uint8)  # 65535 -> 255, rounded
