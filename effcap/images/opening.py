"""Opens photos: from a path, bytes, file, array or Pillow image to a Pillow image."""

from __future__ import annotations

import io
import os
import stat
import threading
import warnings
import weakref
from contextlib import AbstractContextManager
from pathlib import Path
from typing import IO, Any

import numpy as np
from PIL import Image, features

from effcap.images.pixels import from_array
from effcap.images.stored_photo import StoredPhoto
from effcap.images.unreadable_photo import UnreadablePhoto

Photo = (
    str
    | os.PathLike[str]
    | bytes
    | bytearray
    | memoryview
    | IO[bytes]
    | StoredPhoto
    | Image.Image
    | np.ndarray
)
EXPECTED = "expected a path, bytes, a file opened in binary mode, a Pillow image or an array"

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
        return f"photo {os.fsdecode(photo)!r}"
    path = getattr(photo, "filename", None) or getattr(photo, "name", None)
    if isinstance(path, str | Path) and str(path):
        return f"photo {str(path)!r}"
    if isinstance(photo, bytes | bytearray):
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
    elif isinstance(photo, memoryview):
        photo = photo.tobytes()  # of any format and stride
    elif isinstance(photo, StoredPhoto):
        photo = photo.read()
    elif hasattr(photo, "read"):
        photo = _read_callers_file(photo, name)
    elif hasattr(photo, "__array__") and not isinstance(photo, bytes):  # as np.bytes_ is
        return from_array(_as_array(photo, name), name)
    if not isinstance(photo, bytes | bytearray):
        raise UnreadablePhoto(name, f"{EXPECTED}. Received: {type(photo).__name__}")
    if len(photo) == 0:
        raise UnreadablePhoto(name, "it is empty (0 bytes)")
    try:
        return Image.open(io.BytesIO(photo), formats=FORMATS)
    except Image.UnidentifiedImageError:
        is_path = isinstance(photo, bytes) and len(photo) < 4096 and os.path.exists(photo)
        raise UnreadablePhoto(
            name,
            f"it is not an image of a known format ({', '.join(FORMATS)})"
            f"{'. For a path, pass os.fsdecode(path)' if is_path else ''}. Received: "
            f"{len(photo)} bytes that begin with {bytes(photo[:8])!r}",
        ) from None


def load_callers_image(image: Image.Image, name: str) -> tuple[Image.Image, int]:
    """Decodes a Pillow image that other threads may load too.

    Returns:
        The image, or a copy where its conversion would change it; and its EXIF orientation.

    Raises:
        UnreadablePhoto: its file is closed, or an earlier attempt to decode it failed.
    """
    # Pillow decodes and parses EXIF on first use, unsafe in threads; images may share a file.
    with _lock_of(image), _lock_of(getattr(image, "fp", None) or image):
        pending = bool(getattr(image, "tile", ()))
        if id(image) in _failed and not pending:  # Pillow would return what was decoded
            raise UnreadablePhoto(name, _failed[id(image)])
        closed = pending and getattr(image, "fp", None) is None
        try:
            image.load()
        except Exception as error:
            if closed or "closed" in str(error):
                reason = "its file is closed; call image.load() first, or open the image again"
                raise UnreadablePhoto(name, reason) from error
            if id(image) not in _failed:
                weakref.finalize(image, _failed.pop, id(image), None)
            _failed[id(image)] = damage(error)
            raise
        _failed.pop(id(image), None)
        orientation = exif_orientation(image)
        # Conversion of a palette with transparency writes to the palette.
        return (image.copy() if image.mode == "P" else image), orientation


def damage(error: Exception) -> str:
    """Returns the reason that an error of a decoder gives for an unreadable photo."""
    return f"damaged or truncated: {error or type(error).__name__}"


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
        raise UnreadablePhoto("a photo", damage(error)) from error
    width, height = image.size
    if hasattr(image, "tag_v2"):  # of a TIFF, recent versions of Pillow give the upright size
        width, height = image.tag_v2[256], image.tag_v2[257]
    return (height, width) if exif_orientation(image) > 4 else (width, height)


_guard = threading.Lock()
_locks: weakref.WeakValueDictionary[int, Any] = weakref.WeakValueDictionary()  # by id
_failed: dict[int, str] = {}  # reasons by id of the caller's image, while it lives


def _lock_of(shared: Any) -> AbstractContextManager:
    """Returns the lock of an object, the same for all threads that hold or await it."""
    with _guard:
        return _locks.setdefault(id(shared), threading.RLock())


def _read_callers_file(file: Any, name: str) -> Any:
    """Reads a file from its start, as Pillow does, or from where it is if it cannot seek."""
    if isinstance(file, io.TextIOBase):
        raise UnreadablePhoto(name, f"{EXPECTED}. Received: a file opened in text mode")
    with _lock_of(file):
        if getattr(file, "closed", False):
            raise UnreadablePhoto(name, "the file is closed; pass an open file or a path")
        try:
            file.seek(0)
        except (AttributeError, OSError):
            data = file.read()
            if not data:
                reason = "it is empty, or was read before and cannot be rewound"
                raise UnreadablePhoto(name, reason) from None
            return data
        return file.read()


def _as_array(photo: Any, name: str) -> np.ndarray:
    try:
        array = np.asarray(photo)
    except Exception as error:  # such as that of a tensor on a GPU
        reason = f"it cannot be converted to a NumPy array: {error or type(error).__name__}"
        raise UnreadablePhoto(name, reason) from error
    if array.ndim == 0 or array.dtype.kind in "OSTU":  # objects, bytes and strings
        advice = ""
        if array.dtype.kind in "OSTU":
            pass_on = ".item()" if array.ndim == 0 else ".tolist() as a list of photos"
            advice = f"; for paths or bytes, pass np.asarray(photo){pass_on}"
        received = f"Received: an array of shape {array.shape} and dtype {array.dtype}"
        raise UnreadablePhoto(name, f"{EXPECTED} of numbers{advice}. {received}")
    return array


def _read_file(path: str | os.PathLike, name: str) -> bytes:
    path = os.fsdecode(path)  # of a PathLike that gives bytes
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
