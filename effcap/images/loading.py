"""Loads photos upright, in RGB and at a model's size."""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from itertools import islice
from typing import Any, TypeVar

import numpy as np
from PIL import Image, ImageFile

from effcap.images.framing import (
    REDUCING_GAP,
    WHOLE,
    Fit,
    Region,
    Resample,
    check_region,
    check_size,
    resize,
    scaled_size,
    stored_region,
)
from effcap.images.opening import (
    UPRIGHT,
    Photo,
    damage,
    describe_photo,
    exif_orientation,
    load_callers_image,
    open_photo,
)
from effcap.images.pixels import to_rgb
from effcap.images.unreadable_photo import UnreadablePhoto

Item = TypeVar("Item")
Loaded = TypeVar("Loaded")
BATCHES_AHEAD = 1  # loaded while the caller uses an earlier one


def load_photo(
    photo: Photo,
    image_size: tuple[int, int],
    fit: Fit = "squash",
    resample: Resample | None = None,
) -> np.ndarray:
    """Loads one photo at the size that a model takes.

    Photos are made upright by their EXIF orientation, reduced to 8 bits per channel, composited on
    white where transparent, and resized with an antialiased bicubic filter. The first frame of an
    animation is used, of a Pillow image the current one. Color profiles are not applied.

    Args:
        photo: path, bytes of a file, file opened in binary mode, Pillow image, or array (h, w),
            (h, w, 1), (h, w, 3) or (h, w, 4) of uint8 or of floats in 0..255. Files are read from
            their start where they can seek. Threads may share a file or a Pillow image.
        image_size: (height, width) in pixels.
        fit: "squash" resizes the whole photo and changes its aspect ratio, "crop" keeps the aspect
            ratio and crops what exceeds the size on both sides, "pad" keeps the whole photo between
            black bars.
        resample: filter of Pillow, "nearest", "bilinear", "bicubic", "lanczos", "box" or "hamming",
            applied to all pixels as by `PIL.Image.resize`. None for bicubic after a fast reduction
            to no less than twice the size, which takes less time for large photos.

    Returns:
        (height, width, 3) uint8, RGB in 0..255.

    Raises:
        UnreadablePhoto: the file is missing, empty, truncated, damaged, of an unknown format or
            above Pillow's limit of 179 megapixels; or the array has another shape, dtype or range.
            Floats with a maximum of 1 or less, and images of 16 bits with a maximum of 255 or
            less, raise too: they would be almost black. A maximum of 0 does not.
        ValueError: `image_size`, `fit` or `resample` is not one of the above.
        RuntimeError: `PIL.ImageFile.LOAD_TRUNCATED_IMAGES` is set, with which Pillow returns
            truncated photos as if they were complete.
    """
    return np.array(read_photo(photo, image_size, fit, resample=resample))  # (height, width, 3)


def read_photo(
    photo: Photo,
    image_size: tuple[int, int],
    fit: Fit = "squash",
    region: Region = WHOLE,
    resample: Resample | None = None,
) -> Image.Image:
    """Loads one photo, or a part of it, as a Pillow image.

    Args:
        photo, image_size, fit, resample: as in `load_photo`.
        region: (left, top, right, bottom) of the part of the upright photo to read as if it were
            the whole, as fractions of its width and height.

    Returns:
        An RGB image of `image_size`.

    Raises:
        UnreadablePhoto, ValueError, RuntimeError: as `load_photo`.
    """
    height, width = check_size(image_size, fit, resample)
    check_region(region)
    image = _read(photo, (width, height), fit, region, resample)
    if image.size == (width, height):
        return image
    padded = Image.new("RGB", (width, height))
    padded.paste(image, ((width - image.width) // 2, (height - image.height) // 2))
    return padded


def load_thumbnail(photo: Photo, max_size: tuple[int, int]) -> Image.Image:
    """Loads one photo for display: whole, with its aspect ratio, never enlarged.

    Args:
        photo: as in `load_photo`.
        max_size: maximum (height, width) in pixels.

    Returns:
        An upright RGB image.

    Raises:
        UnreadablePhoto, ValueError, RuntimeError: as `load_photo`.
    """
    height, width = check_size(max_size, "pad")
    return _read(photo, (width, height), "inside")


def load_photos(
    photos: Sequence[Photo],
    image_size: tuple[int, int],
    fit: Fit = "squash",
    num_threads: int | None = None,
    resample: Resample | None = None,
) -> np.ndarray:
    """Loads several photos in threads, as `load_photo` does.

    Args:
        photos: photos as in `load_photo`.
        image_size: (height, width) in pixels.
        fit: as in `load_photo`.
        num_threads: number of photos decoded at once; one per core by default.
        resample: as in `load_photo`.

    Returns:
        (B, height, width, 3) uint8, in the order given.

    Raises:
        UnreadablePhoto: the first photo in the order given that cannot be read. To skip such
            photos, call `load_photo` for each.
    """
    height, width = check_size(image_size, fit, resample)
    batch = np.empty((len(photos), height, width, 3), np.uint8)  # (B, height, width, 3)
    pool = ThreadPoolExecutor(num_threads or os.cpu_count() or 1)
    try:
        loaded = pool.map(lambda photo: load_photo(photo, image_size, fit, resample), photos)
        for i, pixels in enumerate(loaded):
            batch[i] = pixels
    finally:
        pool.shutdown(cancel_futures=True)
    return batch


def load_ahead(
    items: Iterable[Item], load: Callable[[Item], Loaded], batch_size: int
) -> Iterator[tuple[list[Item], list[Loaded]]]:
    """Yields batches, which threads load while the caller uses the batch before.

    Args:
        items: what to load, such as photos. It is iterated over in the caller's thread, up to two
            batches ahead of what the caller has received.
        load: loads one item.
        batch_size: items per batch; only the last one is smaller.

    Yields:
        Items, and what `load` returned for each.

    Raises:
        Exception: what `load` raised for the first item of a batch that it failed for, after all
            earlier batches.
    """
    stream = iter(items)
    pool = ThreadPoolExecutor(os.cpu_count() or 1)
    pending: deque[tuple[list[Item], list[Future[Loaded]]]] = deque()
    try:
        while True:
            batch = list(islice(stream, batch_size))
            if batch:
                pending.append((batch, [pool.submit(load, item) for item in batch]))
            elif not pending:
                return
            if len(pending) > BATCHES_AHEAD or not batch:
                loading, futures = pending.popleft()
                yield loading, [future.result() for future in futures]
    finally:
        pool.shutdown(cancel_futures=True)


def _read(
    photo: Any,
    size: tuple[int, int],
    fit: str,
    region: Region = WHOLE,
    resample: Resample | None = None,
) -> Image.Image:
    """Returns an upright RGB image of size (width, height), or inside it for "pad" and "inside"."""
    if ImageFile.LOAD_TRUNCATED_IMAGES:
        raise RuntimeError(
            "Pillow is set to return truncated photos half gray. Set "
            "PIL.ImageFile.LOAD_TRUNCATED_IMAGES = False. Received: True"
        )
    name = describe_photo(photo)
    try:
        image = open_photo(photo, name)
        if image is photo:
            image, orientation = load_callers_image(image, name)
        else:  # drafting would shrink the caller's own image
            if resample is None:
                _draft(image, *size, fit, region)
            image.load()
            orientation = exif_orientation(image)
        if orientation > 4:  # rotated by 90 degrees
            size = size[::-1]
        region = stored_region(region, orientation)
        image = resize(to_rgb(image, name), size, fit, region, resample)
        return image.transpose(UPRIGHT[orientation]) if orientation in UPRIGHT else image
    except UnreadablePhoto:
        raise
    except Image.DecompressionBombError as error:
        raise UnreadablePhoto(name, f"it has more pixels than a photo should. {error}") from error
    except Exception as error:  # decoders raise anything from struct.error to SyntaxError
        raise UnreadablePhoto(name, damage(error)) from error


def _draft(image: Image.Image, width: int, height: int, fit: str, region: Region) -> None:
    """Sets a JPEG to decode at 1/2, 1/4 or 1/8 where that leaves more pixels than needed."""
    if getattr(image, "format", None) not in ("JPEG", "MPO"):
        return
    orientation = exif_orientation(image)
    if orientation > 4:
        width, height = height, width
    left, top, right, bottom = stored_region(region, orientation)
    box_width, box_height = right - left, bottom - top  # fractions
    size = scaled_size((image.width * box_width, image.height * box_height), width, height, fit)
    least = (int(size[0] / box_width * REDUCING_GAP), int(size[1] / box_height * REDUCING_GAP))
    image.draft(None, least)
