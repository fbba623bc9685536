"""Photos from the bytes of a file to the pixels that an encoder takes, inside a TensorFlow graph.

The arithmetic is Pillow's: two passes of an antialiased filter, rounded to 8 bits after each.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import tensorflow as tf

from effcap.images.framing import REDUCING_GAP

HEAD = 1 << 16  # bytes that EXIF is searched in
MARKER = {0: 0xFF, 1: 0xE1, **dict(enumerate(b"Exif\0\0", 4))}  # of its segment in a JPEG
TIFF = 10  # where its contents begin
ORIENTATION_TAG = 0x0112
ALONG = ("nN,NWc->nWc", "nN,HNc->Hnc")  # sums along the first and the second axis
RATIOS = (1, 2, 4, 8)  # by which a JPEG is reduced while it is decoded


def bicubic(x: Any) -> Any:
    """Computes Keys's filter with a = -0.5."""
    x = tf.abs(x)
    near = (1.5 * x - 2.5) * x * x + 1
    far = ((-0.5 * x + 2.5) * x - 4) * x + 2
    return tf.where(x < 1, near, tf.where(x < 2, far, 0.0))


def sinc(x: Any) -> Any:
    """Computes sin(pi x) / (pi x)."""
    return tf.math.divide_no_nan(tf.sin(math.pi * x), math.pi * x) + tf.cast(x == 0, x.dtype)


# Filters of Pillow by name: weight at a distance, and where it becomes 0.
FILTERS: dict[str, tuple[Callable[[Any], Any], float]] = {
    "box": (lambda x: tf.cast(tf.logical_and(x > -0.5, x <= 0.5), x.dtype), 0.5),
    "bilinear": (lambda x: tf.maximum(1 - tf.abs(x), 0), 1.0),
    "hamming": (
        lambda x: tf.where(tf.abs(x) < 1, sinc(x) * (0.54 + 0.46 * tf.cos(math.pi * x)), 0.0),
        1.0,
    ),
    "bicubic": (bicubic, 2.0),
    "lanczos": (lambda x: tf.where(tf.abs(x) < 3, sinc(x) * sinc(x / 3), 0.0), 3.0),
}


def load_photo_bytes(
    data: Any, image_size: tuple[int, int], fit: str, resample: str | None = None
) -> Any:
    """Decodes a photo, makes it upright and resizes it, as `effcap.load_photo` does.

    A few values differ by a step from those of `load_photo`, and those of files with a palette by
    more. Orientations are read from the EXIF segment of JPEGs only.

    Args:
        data: scalar, bytes of a JPEG, PNG, GIF or BMP file.
        image_size, fit, resample: as in `effcap.load_photo`.

    Returns:
        (h, w, 3) float32, 0..255.
    """
    height, width = image_size
    turn = exif_orientation(data)  # ()
    size = tf.where(turn > 4, [width, height], [height, width])  # as stored
    image = decode(data, size, fit, reduces=resample is None)  # (H,W,3)
    image = resize(image, size, fit, resample)
    image = make_upright(image, turn)
    if fit == "pad":
        image = tf.image.resize_with_crop_or_pad(image, height, width)
    return tf.ensure_shape(image, (height, width, 3))


def exif_orientation(data: Any) -> Any:
    """Reads the EXIF orientation, 1 to 8, of the bytes of a JPEG; 1 where there is none."""
    head = tf.io.decode_raw(tf.strings.substr(data, 0, HEAD), tf.uint8)  # (N,)
    head = tf.cast(tf.pad(head, [[0, 64]]), tf.int32)
    is_jpeg = tf.logical_and(head[0] == 0xFF, head[1] == 0xD8)
    last = tf.shape(head)[0] - 32  # within the padding
    starts = [head[i : last + i] == value for i, value in MARKER.items()]  # (N,) each
    found = tf.where(tf.reduce_all(starts, axis=0))[:, 0]  # (M,)
    has_exif = tf.logical_and(is_jpeg, tf.size(found) > 0)
    tiff = tf.cond(has_exif, lambda: tf.cast(found[0], tf.int32) + TIFF, lambda: 0)
    is_little = head[tiff] == ord("I")

    def number(start: Any, length: int) -> Any:
        """Returns an unsigned integer, 0 beyond the bytes that were read."""
        places = tf.minimum(start + tf.range(length), tf.shape(head)[0] - 1)
        digits = tf.gather(head, places)
        digits = tf.where(is_little, digits, tf.reverse(digits, [0]))
        return tf.reduce_sum(digits * 256 ** tf.range(length))

    directory = tiff + tf.clip_by_value(number(tiff + 4, 4), 8, HEAD)
    entries = directory + 2 + 12 * tf.range(tf.minimum(number(directory, 2), 256))  # (E,)
    pairs = tf.stack([entries, entries + 1], axis=1)  # (E,2)
    pairs = tf.gather(head, tf.minimum(pairs, tf.shape(head)[0] - 1))
    pairs = tf.where(is_little, pairs, tf.reverse(pairs, [1]))
    places = tf.where(pairs[:, 0] + 256 * pairs[:, 1] == ORIENTATION_TAG)[:, 0]
    has_tag = tf.logical_and(has_exif, tf.size(places) > 0)
    turn = tf.cond(has_tag, lambda: number(tf.gather(entries, places[0]) + 8, 2), lambda: 1)
    return tf.where(tf.logical_and(turn >= 1, turn <= 8), turn, 1)


def decode(data: Any, size: Any, fit: str, reduces: bool) -> Any:
    """Decodes a photo to float32 (H, W, 3) on white; a JPEG in no more pixels than needed.

    Args:
        data: scalar, bytes of a file.
        size: (height, width) that it is resized to.
        fit: as in `load_photo_bytes`.
        reduces: whether a JPEG may be reduced while it is decoded.
    """

    def decode_jpeg() -> Any:
        def decoder(ratio: int) -> Callable[[], Any]:
            return lambda: tf.io.decode_jpeg(
                data, channels=3, ratio=ratio, dct_method="INTEGER_ACCURATE"
            )

        if not reduces:
            return decoder(1)()
        stored = tf.cast(tf.io.extract_jpeg_shape(data)[:2], tf.float64)
        least = tf.floor(tf.cast(scaled_size(stored, size, fit), tf.float64) * REDUCING_GAP)
        largest = tf.reduce_min(tf.floor(stored / tf.maximum(least, 1)))
        index = tf.reduce_sum(tf.cast(largest >= RATIOS[1:], tf.int32))
        return tf.switch_case(index, [decoder(ratio) for ratio in RATIOS])

    def decode_other() -> Any:
        image = tf.io.decode_image(data, expand_animations=False)  # (H,W,1..4)
        image = tf.cast(image, tf.float32)
        channels = tf.shape(image)[2]
        has_alpha = channels % 2 == 0
        color = image[..., : channels - tf.cast(has_alpha, tf.int32)]
        opacity = tf.where(has_alpha, image[..., -1:] / 255, tf.ones_like(image[..., :1]))
        color = tf.round(color * opacity + 255 * (1 - opacity))  # on white
        return tf.cast(tf.broadcast_to(color, [*tf.unstack(tf.shape(image)[:2]), 3]), tf.uint8)

    is_jpeg = tf.strings.substr(data, 0, 2) == b"\xff\xd8"
    image = tf.cond(is_jpeg, decode_jpeg, decode_other)
    return tf.ensure_shape(tf.cast(image, tf.float32), (None, None, 3))


def scaled_size(stored: Any, size: Any, fit: str) -> Any:
    """Returns the (height, width) of a photo after resizing, before cropping or padding."""
    size = tf.cast(size, tf.float64)
    if fit == "squash":
        return tf.cast(size, tf.int32)
    choose = tf.reduce_max if fit == "crop" else tf.reduce_min
    return tf.cast(tf.maximum(tf.round(stored * choose(size / stored)), 1), tf.int32)


def resize(image: Any, size: Any, fit: str, resample: str | None) -> Any:
    """Resizes what is visible of an image (H, W, 3) to size, or inside it for "pad"."""
    stored = tf.cast(tf.shape(image)[:2], tf.float64)  # (2,)
    start, seen = tf.zeros(2, tf.float64), stored
    if fit == "crop":
        seen = tf.cast(size, tf.float64)
        seen /= tf.reduce_max(seen / stored)
        start = tf.maximum((stored - seen) / 2, 0)
    elif fit == "pad":
        size = scaled_size(stored, size, fit)
    size = tf.cast(size, tf.float64)
    if resample is None:
        image, start, seen = reduce(image, start, seen, size)
    for axis in (1, 0):  # as Pillow: rows first
        length = tf.shape(image)[axis]
        shares = filter_shares(start[axis], seen[axis], size[axis], length, resample or "bicubic")
        image = tf.einsum(ALONG[axis], shares, image)  # (H,w,3), then (h,w,3)
        image = tf.clip_by_value(tf.floor(image + 0.5), 0, 255)
    return image


def reduce(image: Any, start: Any, seen: Any, size: Any) -> tuple[Any, Any, Any]:
    """Reduces an image by whole factors to no less than twice the size, as Pillow does.

    Args:
        image: (H, W, 3).
        start, seen: first pixel and number of pixels that are visible, each (2,).
        size: (height, width) that these are resized to.

    Returns:
        The reduced part of the image, and `start` and `seen` in its pixels.
    """
    factors = tf.maximum(tf.floor(seen / size / REDUCING_GAP), 1)  # (2,)
    margin = FILTERS["bicubic"][1] * seen / size
    stored = tf.cast(tf.shape(image)[:2], tf.float64)
    first = tf.maximum(tf.floor(start - margin), 0)
    last = tf.minimum(tf.math.ceil(start + seen + margin), stored)
    is_whole = tf.reduce_all(factors == 1)
    first = tf.where(is_whole, tf.zeros_like(first), first)
    last = tf.where(is_whole, stored, last)
    counts = []  # of the pixels that are averaged, (h,) and (w,)
    for axis in (0, 1):
        places = first[axis] + tf.range(last[axis] - first[axis])  # (N,)
        groups = tf.floor((places - first[axis]) / factors[axis])
        members = tf.cast(groups[None] == tf.range(groups[-1] + 1)[:, None], tf.float32)  # (n,N)
        counts.append(tf.reduce_sum(members, axis=1))
        part = tf.gather(image, tf.cast(places, tf.int32), axis=axis)
        image = tf.einsum(ALONG[axis], members, part)  # (h,W,3), then (h,w,3)
    number = counts[0][:, None, None] * counts[1][None, :, None]  # (h,w,1)
    # Sums times 2**24 / number, a whole number in Pillow, so that some means are a step lower.
    reciprocals = tf.cast(2.0**32 / (256 * number), tf.int64)
    sums = tf.cast(image, tf.int64) + tf.cast(number, tf.int64) // 2
    means = tf.bitwise.right_shift(sums * reciprocals, tf.constant(24, tf.int64))
    return tf.cast(means, tf.float32), (start - first) / factors, seen / factors


def filter_shares(start: Any, seen: Any, size: Any, length: Any, resample: str) -> Any:
    """Returns the share (n,N) that each of N pixels has in each of n pixels.

    Args:
        start, seen: first pixel and number of pixels that are resized, scalars.
        size: number n of pixels.
        length: number N of pixels.
        resample: as in `effcap.load_photo`.
    """
    scale, pixels = seen / size, tf.cast(length, tf.float64)
    centers = start + (tf.range(size) + 0.5) * scale  # (n,)
    if resample == "nearest":
        return tf.one_hot(tf.cast(tf.floor(centers), tf.int32), length)
    function, support = FILTERS[resample]
    stretch = tf.maximum(scale, 1)
    places = tf.range(pixels) + 0.5  # (N,)
    # Pillow takes whole pixels within the support.
    first = tf.floor(tf.maximum(centers - support * stretch + 0.5, 0))[:, None]
    end = tf.floor(tf.minimum(centers + support * stretch + 0.5, pixels))[:, None]
    inside = tf.logical_and(places > first, places < end)  # (n,N)
    shares = function((places - centers[:, None]) / stretch)  # (n,N)
    shares = tf.where(inside, shares, 0)
    return tf.cast(shares / tf.reduce_sum(shares, axis=1, keepdims=True), tf.float32)


def make_upright(image: Any, turn: Any) -> Any:
    """Returns an image (h, w, 3) turned by its EXIF orientation."""
    flip_x, flip_y = tf.image.flip_left_right, tf.image.flip_up_down
    swap = tf.image.transpose
    turns = (
        lambda: image,
        lambda: flip_x(image),
        lambda: flip_y(flip_x(image)),
        lambda: flip_y(image),
        lambda: swap(image),
        lambda: flip_x(swap(image)),
        lambda: flip_y(flip_x(swap(image))),
        lambda: flip_y(swap(image)),
    )
    return tf.switch_case(turn - 1, turns)
