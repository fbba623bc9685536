"""Damaged photos of all formats.

A photo that is accepted although its end is cut off must look like the whole photo.
"""

from __future__ import annotations

import io
import struct
import tempfile
import warnings
import zlib
from collections.abc import Callable
from pathlib import Path
from random import Random

import checkout  # noqa: F401
import numpy as np
from fuzz_damages import cut, flip_bits, insert, remove, run_cases
from fuzz_report import Report
from fuzz_worker import Result, refusal
from PIL import Image, features

FORMATS: tuple[tuple[str, str, dict], ...] = (
    ("JPEG", "RGB", {}), ("JPEG", "RGB", {"progressive": True}), ("JPEG", "L", {}),
    ("JPEG", "CMYK", {}), ("JPEG", "RGB", {"restart_marker_rows": 1}), ("MPO", "RGB", {}),
    ("PNG", "RGB", {}), ("PNG", "RGBA", {}), ("PNG", "P", {}), ("PNG", "LA", {}),
    ("PNG", "I;16", {}), ("PNG", "1", {}), ("WEBP", "RGB", {}),
    ("WEBP", "RGBA", {"lossless": True}), ("WEBP", "RGB", {"save_all": True}),
    ("BMP", "RGB", {}), ("BMP", "P", {}), ("BMP", "1", {}), ("GIF", "P", {"transparency": 0}),
    ("GIF", "P", {"save_all": True}), ("TIFF", "RGB", {"compression": "tiff_lzw"}),
    ("TIFF", "CMYK", {}), ("TIFF", "I;16", {}), ("TIFF", "F", {}), ("PPM", "RGB", {}),
    ("PPM", "L", {}),
)  # fmt: skip


def fuzz(cases: int, seed: int) -> Report:
    """Reads damaged photos."""
    return run_cases(cases, seed, make_file, make_reader)


def scene(width: int = 48, height: int = 40) -> Image.Image:
    """Returns a colorful image with some detail."""
    corners = np.array([[[255, 0, 0], [0, 255, 0]], [[0, 0, 255], [255, 255, 255]]], np.uint8)
    smooth = np.asarray(Image.fromarray(corners).resize((width, height)), np.int16)
    noise = np.random.default_rng(0).integers(-20, 21, smooth.shape)
    return Image.fromarray(np.clip(smooth + noise, 0, 255).astype(np.uint8))


def _photos() -> dict[str, bytes]:
    """Returns whole photos by a description of their format."""
    formats = list(FORMATS)
    if "avif" in features.modules and features.check("avif"):
        formats.append(("AVIF", "RGB", {}))
    exif = Image.Exif()
    exif[0x0112] = 6  # rotated by 90 degrees
    photos = {}
    for form, mode, options in formats:
        if mode == "I;16":
            image = Image.fromarray(np.asarray(scene().convert("L")).astype(np.uint16) * 257)
        else:
            image = scene().convert(mode)
        if options.get("save_all"):
            options = {**options, "append_images": [image.transpose(Image.Transpose.ROTATE_180)]}
        if form in ("JPEG", "PNG", "WEBP", "TIFF"):
            options = {**options, "exif": exif}
        file = io.BytesIO()
        image.save(file, form, **options)
        photos[f"{form} {mode} {' '.join(options)}"] = file.getvalue()
    return photos


PHOTOS = _photos()


def make_file(rng: Random) -> tuple[str, tuple]:
    """Returns (description, (content, image size, fit, whole content if only the end is cut))."""
    name = rng.choice(sorted(PHOTOS))
    whole = PHOTOS[name]
    data, damages = bytearray(whole), []
    for _ in range(rng.choice((1, 1, 1, 2, 4))):
        damage = rng.choice(DAMAGES)
        data = bytearray(damage(data, rng))
        damages.append(damage.__name__)
    if name.startswith("PNG") and rng.random() < 0.5:
        data = bytearray(mend_png(bytes(data)))  # otherwise only its checksums are tested
        damages.append(mend_png.__name__)
    size, fit = rng.choice(((32, 32), (20, 70))), rng.choice(("squash", "crop", "pad"))
    only_cut = whole if set(damages) <= {"cut", "mend_png"} else None
    return f"{name} with {', '.join(damages)}", (bytes(data), size, fit, only_cut)


def overwrite(data: bytearray, rng: Random) -> bytes:
    """Overwrites one to eight bytes."""
    position, size = rng.randrange(len(data) + 1), rng.choice((1, 4, 8))
    data[position : position + size] = rng.choice(
        (rng.randbytes(size), b"\xff" * size, bytes(size))
    )
    return data


def edit_header(data: bytearray, rng: Random) -> bytes:
    """Replaces one of the first 64 bytes."""
    position = rng.randrange(max(1, min(len(data), 64)))
    data[position : position + 1] = bytes([rng.randrange(256)])
    return data


def resize(data: bytearray, rng: Random) -> bytes:
    """Declares another width or height, often a huge one, wherever the bytes of one occur."""
    old = rng.choice((48, 40, 47, 39))
    new = rng.choice((0, 1, 49, 5000, 13000, 16383, 65535, 2**24 - 1, 2**31 - 1, 2**32 - 1))
    form = rng.choice((">I", "<I", ">H", "<H"))
    mask = 2 ** (8 * struct.calcsize(form)) - 1
    return data.replace(struct.pack(form, old), struct.pack(form, new & mask), 2)


def end_early(data: bytearray, rng: Random) -> bytes:
    """Removes the end and adds JPEG's end marker."""
    return cut(data, rng) + b"\xff\xd9"


def splice(data: bytearray, rng: Random) -> bytes:
    """Continues with another photo."""
    other = rng.choice(sorted(PHOTOS.items()))[1]
    return data[: rng.randrange(len(data) + 1)] + other[rng.randrange(len(other)) :]


DAMAGES = (
    flip_bits, flip_bits, overwrite, edit_header, resize, remove, cut, insert, splice, end_early,
)  # fmt: skip


def mend_png(data: bytes) -> bytes:
    """Corrects the checksums of all chunks of a PNG."""
    mended, position = bytearray(data[:8]), 8
    while position + 12 <= len(data):
        (size,) = struct.unpack(">I", data[position : position + 4])
        body = data[position + 4 : position + 8 + size]
        mended += data[position : position + 4] + body + struct.pack(">I", zlib.crc32(body))
        position += 12 + size
    return bytes(mended) + data[position:]


def make_reader() -> Callable[[tuple], Result]:
    """Returns the function that checks and reads a photo."""
    warnings.simplefilter("error")
    from effcap.images import UnreadablePhoto, load_photo
    from effcap.trainers import Example, check_photos

    photo = Example(Path(tempfile.mkdtemp(prefix="fuzz-"), "photo"), ("a caption",))

    def read(case: tuple) -> Result:
        data, size, fit, whole = case
        photo.path.write_bytes(data)
        readable, problems = check_photos([photo], size)
        try:
            pixels = load_photo(data, size, fit)
        except UnreadablePhoto as error:
            if readable or problems[0].reason != error.reason:
                return "wrong", f"the check gave {problems}, but reading {error}"
            return ("no memory", str(error)) if "MemoryError" in str(error) else refusal(error)
        if pixels.shape != (*size, 3) or pixels.dtype != np.uint8:
            return "wrong", f"{pixels.dtype} pixels of shape {pixels.shape}"
        if problems and problems[0].reason.startswith("truncated"):
            return "refused", str(problems[0])
        if problems:
            return "wrong", f"the check gave {problems[0]}, but the photo was read"
        if whole is not None and not np.array_equal(pixels, load_photo(whole, size, fit)):
            return "wrong", "cut off, but accepted, and different from the whole photo"
        return "accepted", ""

    return read
