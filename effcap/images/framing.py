"""Computes the visible part of a photo and its size after resizing."""

from __future__ import annotations

from typing import Any, Literal, get_args

from PIL import Image

Fit = Literal["squash", "crop", "pad"]
Resample = Literal["nearest", "bilinear", "bicubic", "lanczos", "box", "hamming"]
Region = tuple[float, float, float, float]  # left, top, right, bottom, as fractions of the sides

WHOLE: Region = (0.0, 0.0, 1.0, 1.0)
RESAMPLING = Image.Resampling.BICUBIC  # the default filter
REDUCING_GAP = 2.0  # fast methods reduce a photo to no less than twice the requested size


def check_size(image_size: Any, fit: str, resample: str | None = None) -> tuple[int, int]:
    """Returns `image_size` as two integers.

    Raises:
        ValueError: it is not (height, width) in whole pixels, or `fit` or `resample` is unknown.
    """
    if resample not in (None, *get_args(Resample)):
        raise ValueError(
            f"resample must be one of {get_args(Resample)}, or None. Received: "
            f"resample={resample!r}"
        )
    if fit not in get_args(Fit):
        raise ValueError(f"fit must be one of {get_args(Fit)}. Received: fit={fit!r}")
    try:
        height, width = image_size
        valid = int(height) == height >= 1 and int(width) == width >= 1
    except (TypeError, ValueError):
        valid = False
    if not valid:
        raise ValueError(
            "image_size must be (height, width), both whole numbers above 0. "
            f"Received: image_size={image_size!r}"
        )
    return int(height), int(width)


def check_region(region: Region) -> None:
    """Checks that a region is a box inside the photo.

    Raises:
        ValueError: it is not.
    """
    left, top, right, bottom = region
    if not (0 <= left < right <= 1 and 0 <= top < bottom <= 1):
        raise ValueError(
            "region must be (left, top, right, bottom) with 0 <= left < right <= 1 and "
            f"0 <= top < bottom <= 1. Received: region={region!r}"
        )


def stored_region(region: Region, orientation: int) -> Region:
    """Returns a region of the upright photo as a region of the stored photo.

    Args:
        region: (left, top, right, bottom) as fractions of the upright sides.
        orientation: EXIF orientation, 1 to 8.
    """
    left, top, right, bottom = region
    if orientation > 4:
        left, top, right, bottom = top, left, bottom, right
    if orientation in (2, 3, 7, 8):
        left, right = 1 - right, 1 - left
    if orientation in (3, 4, 6, 7):
        top, bottom = 1 - bottom, 1 - top
    return left, top, right, bottom


def scaled_size(size: tuple[float, float], width: int, height: int, fit: str) -> tuple[int, int]:
    """Returns the (width, height) of a photo after resizing, before cropping or padding.

    Args:
        size: (width, height) of the photo in pixels.
        width, height: requested size in pixels.
        fit: "squash", "crop", "pad", or "inside" (as "pad", but never enlarged).
    """
    if fit == "squash":
        return width, height
    choose = max if fit == "crop" else min
    scale = choose(width / size[0], height / size[1])
    if fit == "inside":
        scale = min(scale, 1.0)
    return max(1, round(size[0] * scale)), max(1, round(size[1] * scale))


def visible_box(
    size: tuple[int, int], image_size: tuple[int, int], fit: str, region: Region = WHOLE
) -> tuple[Region, tuple[int, int]]:
    """Computes the visible part of a photo, and its size after resizing.

    Args:
        size: (width, height) of the photo in pixels.
        image_size, fit, region: as in `read_photo`.

    Returns:
        The box (left, top, right, bottom) in pixels of the photo, and the (width, height) in
        pixels that it is resized to.
    """
    height, width = image_size
    left, top, right, bottom = (x * side for x, side in zip(region, 2 * size, strict=True))
    box_width, box_height = right - left, bottom - top
    if fit in ("pad", "inside"):
        width, height = scaled_size((box_width, box_height), width, height, fit)
    elif fit == "crop":
        scale = max(width / box_width, height / box_height)
        margin_x = max(0.0, (box_width - width / scale) / 2)
        margin_y = max(0.0, (box_height - height / scale) / 2)
        left, top, right, bottom = (
            left + margin_x, top + margin_y, right - margin_x, bottom - margin_y,
        )  # fmt: skip
    return (left, top, right, bottom), (width, height)


def resize(
    image: Image.Image,
    size: tuple[int, int],
    fit: str,
    region: Region,
    resample: Resample | None = None,
) -> Image.Image:
    """Resizes the visible part of an image with an antialiased filter.

    Args:
        image: image to resize.
        size: (width, height) in pixels.
        fit, region, resample: as in `read_photo`.
    """
    box, size = visible_box(image.size, size[::-1], fit, region)
    if resample is None:
        return image.resize(size, RESAMPLING, box, REDUCING_GAP)
    return image.resize(size, Image.Resampling[resample.upper()], box)
