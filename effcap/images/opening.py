"""Opens photos: from a path, bytes, file, array or Pillow image to a Pillow image."""

from __future__ import annotations

import os
import stat
import warnings
from io import BytesIO
from pathlib import Path
from typing import IO, Any

import numpy as np
from PIL import Image, features

from effcap.images.pixels import from_array
from effcap.images.unreadable_photo import UnreadablePhoto

Photo = str | os.PathLike[str] | bytes | IO[bytes] | Image.Image | np.ndarray

FORMATS = ["JPEG", "PNG", "WEBP", "BMP", "GIF", "TIFF", "PPM"]
if "avif" in features.modules and features.check("avif"):  # in Pillow since 11.3
    FORMATS.append("AVIF")
LARGEST_FILE = 2**30  # bytes; no photo of 179 megapixels needs more

ORIENTATION_TAG = 0x0112
# The transposition that makes a photo upright, by its EXIF orientation (1 is upright).
UPRIGHT = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}

# Pillow warns about odd metadata and photos over 89 megapixels; neither changes the pixels.
# Filters are global because warnings.catch_warnings is not thread-safe.
warnings.filterwarnings("ignore", category=UserWarning, module=r"PIL\.")
warnings.filterwarnings("ignore", category=Image.DecompressionBombWarning)


def describe_photo(photo: Any) -> str:
    """Returns how errors refer to a photo: its path, or the kind of input."""
    if isinstance(photo, str | os.PathLike):
        return f"photo {os.fspath(photo)!r}"
    path = getattr(photo, "filename", None) or getattr(photo, "name", None)
    if isinstance(path, str | Path) and str(path):
        return f"photo {str(path)!r}"
    if isinstance(photo, bytes | bytearray | memoryview):
        return f"photo of {len(photo)} bytes"
    if hasattr(photo, "__array__") and not isinstance(photo, Image.Image):
        return "photo array"
    return f"photo given as {type(photo).__name__}"


def open_photo(photo: Any, name: str) -> Image.Image:
    """Returns a Pillow image; of a file, the bytes are read but not necessarily decoded.

    Raises:
        UnreadablePhoto: the photo is missing, empty or not a photo; `name` names it.
    """
    if isinstance(photo, Image.Image):
        if 0 in photo.size:
            raise UnreadablePhoto(name, f"it has no pixels. Received: size={photo.size}")
        return photo
    if isinstance(photo, str | os.PathLike):
        photo = _read_file(photo, name)
    elif hasattr(photo, "read"):
        photo = photo.read()
    elif hasattr(photo, "__array__") and not isinstance(photo, memoryview):
        return from_array(np.asarray(photo), name)
    if not isinstance(photo, bytes | bytearray | memoryview):
        raise UnreadablePhoto(
            name,
            "expected a path, bytes, a file opened in binary mode, a Pillow image or an "
            f"array. Received: {type(photo).__name__}",
        )
    if len(photo) == 0:
        raise UnreadablePhoto(name, "it is empty (0 bytes)")
    try:
        return Image.open(BytesIO(photo), formats=FORMATS)
    except Image.UnidentifiedImageError:
        raise UnreadablePhoto(
            name,
            f"it is not an image of a known format ({', '.join(FORMATS)}). Received: "
            f"{len(photo)} bytes that begin with {bytes(photo[:8])!r}",
        ) from None


def exif_orientation(image: Image.Image) -> int:
    """Returns the EXIF orientation, 1 to 8; 1 (upright) if metadata are missing or damaged."""
    try:
        orientation = image.getexif().get(ORIENTATION_TAG)
    except Exception:  # damaged metadata raise any exception, and the pixels may be intact
        return 1
    return orientation if orientation in UPRIGHT else 1


def upright_size(photo: bytes) -> tuple[int, int]:
    """Returns the upright (width, height) of the photo in an image file, without decoding it.

    Raises:
        UnreadablePhoto: as `load_photo`.
    """
    try:
        image = open_photo(photo, "a photo")
    except UnreadablePhoto:
        raise
    except Exception as error:  # decoders raise anything from struct.error to SyntaxError
        raise UnreadablePhoto("a photo", f"damaged: {error or type(error).__name__}") from error
    width, height = image.size
    return (height, width) if exif_orientation(image) > 4 else (width, height)


def _read_file(path: str | os.PathLike[str], name: str) -> bytes:
    try:
        status = os.stat(path)
        if not stat.S_ISREG(status.st_mode) and not stat.S_ISDIR(status.st_mode):
            raise UnreadablePhoto(name, "it is a pipe or device, not a file")
        if status.st_size > LARGEST_FILE:
            raise UnreadablePhoto(
                name,
                f"expected a file of at most {LARGEST_FILE >> 20} MB. "
                f"Received: {status.st_size >> 20} MB",
            )
        return Path(path).read_bytes()
    except FileNotFoundError:
        hint = ", and URLs are not downloaded" if "://" in str(path) else ""
        raise UnreadablePhoto(name, f"there is no such file{hint}") from None
    except IsADirectoryError:
        raise UnreadablePhoto(name, "it is a folder; find_photos lists the photos in it") from None
    except (OSError, ValueError) as error:  # ValueError: a path with a null character
        raise UnreadablePhoto(name, f"the file cannot be read: {error}") from error
