"""Photos from files, bytes, arrays or Pillow images into the pixels that the model sees."""

from __future__ import annotations

import os
import stat
import warnings
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from io import BytesIO
from pathlib import Path
from typing import IO, Any, Literal, get_args

import numpy as np
from PIL import Image, ImageFile, features

Photo = str | os.PathLike[str] | bytes | IO[bytes] | Image.Image | np.ndarray
Fit = Literal["squash", "crop", "pad"]
Region = tuple[float, float, float, float]  # left, top, right, bottom, in shares of the sides

IMAGE_SUFFIXES = (
    ".jpg", ".jpeg", ".png", ".webp", ".bmp", ".gif", ".tif", ".tiff", ".ppm", ".pgm", ".avif",
)  # fmt: skip
FORMATS = ["JPEG", "PNG", "WEBP", "BMP", "GIF", "TIFF", "PPM"]
if "avif" in features.modules and features.check("avif"):  # in Pillow since 11.3
    FORMATS.append("AVIF")
RESAMPLING = Image.Resampling.BICUBIC  # in all paths: photos look alike in training and use
REDUCING_GAP = 2.0  # a photo is shrunk by a cheap method to no less than twice the size wanted
WHITE = (255, 255, 255)
WHOLE: Region = (0.0, 0.0, 1.0, 1.0)
LARGEST_FILE = 2**30  # bytes; no photo of 179 megapixels needs more
SIXTEEN_BITS = ("I", "I;16", "I;16L", "I;16B", "I;16N")

# Orientation in EXIF, 1 being upright, and what undoes it.
UPRIGHT = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
ORIENTATION_TAG = 0x0112

# Pillow warns of odd metadata and of photos over 89 megapixels: neither harms the pixels.
# A filter, since warnings.catch_warnings is not safe in threads.
warnings.filterwarnings("ignore", category=UserWarning, module=r"PIL\.")
warnings.filterwarnings("ignore", category=Image.DecompressionBombWarning)


class UnreadablePhoto(ValueError):
    """A photo that is missing, damaged, or not a photo.

    Attributes:
        photo: its path, or what it was given as.
        reason: what was expected and what was found.
    """

    def __init__(self, photo: str, reason: str) -> None:
        super().__init__(photo, reason)
        self.photo = photo
        self.reason = reason

    def __str__(self) -> str:
        return f"Cannot read {self.photo}: {self.reason}"


def load_photo(photo: Photo, image_size: tuple[int, int], fit: Fit = "squash") -> np.ndarray:
    """Read one photo at the size the model takes.

    Pictures are turned upright by their EXIF orientation, reduced to 8 bits per channel, laid on
    white where transparent, and resized with an antialiased bicubic filter. Of an animation the
    first frame counts. Colour profiles are not applied.

    Args:
        photo: a path, the bytes of a file, a file opened in binary mode, a Pillow image, or an
            array (h, w), (h, w, 1), (h, w, 3) or (h, w, 4), either uint8 or floats in 0..255.
        image_size: (height, width) in pixels.
        fit: "squash" takes the whole photo and changes its shape, "crop" keeps the shape and cuts
            off what sticks out on both sides, "pad" keeps all of it between black bars.

    Returns:
        (height, width, 3) uint8, red, green, blue in 0..255.

    Raises:
        UnreadablePhoto: the file is missing, empty, truncated, damaged, of a format that is not
            read, or too large to be honest (Pillow's limit of 179 megapixels); or the array has
            another shape, dtype or range. Floats that end at 1.0 are refused rather than guessed
            at: they would come out black.
        ValueError: `image_size` or `fit` is not one of the above.
        RuntimeError: `PIL.ImageFile.LOAD_TRUNCATED_IMAGES` is set, under which Pillow hands out
            truncated photos as if whole.
    """
    return np.array(read_photo(photo, image_size, fit))  # (height, width, 3)


def read_photo(
    photo: Photo, image_size: tuple[int, int], fit: Fit = "squash", region: Region = WHOLE
) -> Image.Image:
    """As `load_photo`, but gives a Pillow image, also of a part of the photo.

    Args:
        photo, image_size, fit: as in `load_photo`.
        region: (left, top, right, bottom) of the part of the upright photo to read as if it were
            the whole, in shares of its width and height.

    Returns:
        An RGB image of that size.

    Raises:
        UnreadablePhoto, ValueError, RuntimeError: as `load_photo`.
    """
    height, width = _checked_size(image_size, fit)
    left, top, right, bottom = region
    if not (0 <= left < right <= 1 and 0 <= top < bottom <= 1):
        raise ValueError(
            "region must be (left, top, right, bottom) with 0 <= left < right <= 1 and "
            f"0 <= top < bottom <= 1. Received: region={region!r}"
        )
    image = _read(photo, width, height, fit, region)
    if image.size == (width, height):
        return image
    bars = Image.new("RGB", (width, height))
    bars.paste(image, ((width - image.width) // 2, (height - image.height) // 2))
    return bars


def load_thumbnail(photo: Photo, largest: tuple[int, int]) -> Image.Image:
    """Read one photo for people to look at: whole, in its own shape, never enlarged.

    Args:
        photo: as `load_photo` takes it.
        largest: (height, width) in pixels that it must fit into.

    Returns:
        An upright RGB image.

    Raises:
        UnreadablePhoto, ValueError, RuntimeError: as `load_photo`.
    """
    height, width = _checked_size(largest, "pad")
    return _read(photo, width, height, "inside")


def load_photos(
    photos: Sequence[Photo],
    image_size: tuple[int, int],
    fit: Fit = "squash",
    threads: int | None = None,
) -> np.ndarray:
    """`load_photo` for many, in threads.

    Args:
        photos: as `load_photo` takes them.
        image_size: (height, width) in pixels.
        fit: as in `load_photo`.
        threads: how many photos are decoded at once; by default one per core.

    Returns:
        (B, height, width, 3) uint8, in the order given.

    Raises:
        UnreadablePhoto: for the first photo, in the order given, that cannot be read. Call
            `load_photo` for each where others should go on.
    """
    height, width = _checked_size(image_size, fit)
    batch = np.empty((len(photos), height, width, 3), np.uint8)  # (B, height, width, 3)
    pool = ThreadPoolExecutor(threads or os.cpu_count() or 1)
    try:
        loaded = pool.map(lambda photo: load_photo(photo, image_size, fit), photos)
        for i, pixels in enumerate(loaded):
            batch[i] = pixels
    finally:
        pool.shutdown(cancel_futures=True)
    return batch


def _checked_size(image_size: tuple[int, int], fit: str) -> tuple[int, int]:
    if fit not in get_args(Fit):
        raise ValueError(f"fit must be one of {get_args(Fit)}. Received: fit={fit!r}")
    try:
        height, width = image_size
        good = int(height) == height >= 1 and int(width) == width >= 1
    except (TypeError, ValueError):
        good = False
    if not good:
        raise ValueError(
            "image_size must be (height, width), both whole numbers above 0. "
            f"Received: image_size={image_size!r}"
        )
    return int(height), int(width)


def _name(photo: Any) -> str:
    """What to call a photo in errors."""
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


def _read(photo: Any, width: int, height: int, fit: str, region: Region = WHOLE) -> Image.Image:
    """An upright RGB image that fills (width, height), or for "pad" and "inside" lies within it."""
    if ImageFile.LOAD_TRUNCATED_IMAGES:
        raise RuntimeError(
            "Pillow is set to return truncated photos half grey. Set "
            "PIL.ImageFile.LOAD_TRUNCATED_IMAGES = False. Received: True"
        )
    name = _name(photo)
    try:
        image = _open(photo, name)
        if image is not photo:  # drafting would shrink the caller's own image
            _draft(image, width, height, fit, region)
        image.load()
        orientation = _orientation(image)
        if orientation > 4:  # lies on its side
            width, height = height, width
        region = _as_stored(region, orientation)
        image = _resize(_to_rgb(image, name), width, height, fit, region)
        return image.transpose(UPRIGHT[orientation]) if orientation in UPRIGHT else image
    except UnreadablePhoto:
        raise
    except Image.DecompressionBombError as error:
        raise UnreadablePhoto(name, f"it has more pixels than a photo should. {error}") from error
    except Exception as error:  # decoders raise anything from struct.error to SyntaxError
        reason = f"damaged or truncated: {error or type(error).__name__}"
        raise UnreadablePhoto(name, reason) from error


def _open(photo: Any, name: str) -> Image.Image:
    """A Pillow image, its file read but its pixels perhaps not yet decoded."""
    if isinstance(photo, Image.Image):
        if 0 in photo.size:
            raise UnreadablePhoto(name, f"it has no pixels. Received: size={photo.size}")
        return photo
    if isinstance(photo, str | os.PathLike):
        photo = _read_file(photo, name)
    elif hasattr(photo, "read"):
        photo = photo.read()
    elif hasattr(photo, "__array__") and not isinstance(photo, memoryview):
        return _from_array(np.asarray(photo), name)
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


def _read_file(path: str | os.PathLike[str], name: str) -> bytes:
    try:
        status = os.stat(path)
        if not stat.S_ISREG(status.st_mode) and not stat.S_ISDIR(status.st_mode):
            raise UnreadablePhoto(name, "it is no file but a pipe or device, which may never end")
        if status.st_size > LARGEST_FILE:
            raise UnreadablePhoto(
                name,
                f"expected a file of at most {LARGEST_FILE >> 20} MB. "
                f"Received: {status.st_size >> 20} MB",
            )
        return Path(path).read_bytes()
    except FileNotFoundError:
        hint = ", and addresses are not fetched" if "://" in str(path) else ""
        raise UnreadablePhoto(name, f"there is no such file{hint}") from None
    except IsADirectoryError:
        raise UnreadablePhoto(name, "it is a folder; find_photos lists the photos in it") from None
    except (OSError, ValueError) as error:  # ValueError: a path with a null character
        raise UnreadablePhoto(name, f"the file cannot be read: {error}") from error


def _from_array(array: np.ndarray, name: str) -> Image.Image:
    received = f"Received: an array of shape {array.shape} and dtype {array.dtype}"
    gray = array.ndim == 2 or (array.ndim == 3 and array.shape[2] == 1)
    if not (gray or (array.ndim == 3 and array.shape[2] in (3, 4))) or 0 in array.shape:
        raise UnreadablePhoto(
            name, f"expected shape (h, w), (h, w, 1), (h, w, 3) or (h, w, 4). {received}"
        )
    if array.dtype != np.uint8:
        if not np.issubdtype(array.dtype, np.floating):
            raise UnreadablePhoto(name, f"expected uint8, or floats in 0..255. {received}")
        array = _floats_to_bytes(array, name)
    if gray:
        array = array.reshape(array.shape[:2])  # (h, w, 1) -> (h, w)
    return Image.fromarray(np.ascontiguousarray(array))


def _floats_to_bytes(array: np.ndarray, name: str) -> np.ndarray:
    low, high = float(array.min()), float(array.max())
    if not (low >= 0 and high <= 255):  # not-a-number fails too
        raise UnreadablePhoto(
            name, f"expected floats in 0..255. Received: values from {low:g} to {high:g}"
        )
    if 0 < high <= 1:
        raise UnreadablePhoto(
            name,
            "expected floats in 0..255; these look like 0..1, so multiply them by 255. "
            f"Received: values from {low:g} to {high:g}",
        )
    return np.rint(array).astype(np.uint8)


def _orientation(image: Image.Image) -> int:
    """1 to 8 as EXIF counts; 1, upright, where the metadata are missing or damaged."""
    try:
        orientation = image.getexif().get(ORIENTATION_TAG)
    except Exception:  # damaged metadata raises anything, and the pixels may well be whole
        return 1
    return orientation if orientation in UPRIGHT else 1


def _as_stored(region: Region, orientation: int) -> Region:
    """Where a region of the upright photo lies in the photo as it is stored."""
    left, top, right, bottom = region
    if orientation > 4:
        left, top, right, bottom = top, left, bottom, right
    if orientation in (2, 3, 7, 8):
        left, right = 1 - right, 1 - left
    if orientation in (3, 4, 6, 7):
        top, bottom = 1 - bottom, 1 - top
    return left, top, right, bottom


def _scaled(size: tuple[float, float], width: int, height: int, fit: str) -> tuple[int, int]:
    """Size of the photo once resized, before anything is cut off or added."""
    if fit == "squash":
        return width, height
    choose = max if fit == "crop" else min
    scale = choose(width / size[0], height / size[1])
    if fit == "inside":
        scale = min(scale, 1.0)
    return max(1, round(size[0] * scale)), max(1, round(size[1] * scale))


def _draft(image: Image.Image, width: int, height: int, fit: str, region: Region) -> None:
    """Let a JPEG decode at 1/2, 1/4 or 1/8 where that leaves more pixels than needed."""
    if getattr(image, "format", None) not in ("JPEG", "MPO"):
        return
    orientation = _orientation(image)
    if orientation > 4:
        width, height = height, width
    left, top, right, bottom = _as_stored(region, orientation)
    across, down = right - left, bottom - top
    size = _scaled((image.width * across, image.height * down), width, height, fit)
    wanted = (int(size[0] / across * REDUCING_GAP), int(size[1] / down * REDUCING_GAP))
    image.draft(None, wanted)


def _to_rgb(image: Image.Image, name: str) -> Image.Image:
    if image.mode in SIXTEEN_BITS:
        array = _sixteen_to_eight_bits(np.asarray(image), name)
        if "transparency" in image.info:  # one value that stands for it
            array[np.asarray(image) == image.info["transparency"]] = 255
        return Image.fromarray(array).convert("RGB")
    if image.mode == "F":
        return Image.fromarray(_floats_to_bytes(np.asarray(image), name)).convert("RGB")
    if image.has_transparency_data:
        image = image.convert("RGBA")
        background = Image.new("RGBA", image.size, WHITE)
        return Image.alpha_composite(background, image).convert("RGB")
    return image if image.mode == "RGB" else image.convert("RGB")


def _sixteen_to_eight_bits(array: np.ndarray, name: str) -> np.ndarray:
    low, high = int(array.min()), int(array.max())
    if low < 0 or high > 65535:
        raise UnreadablePhoto(
            name, f"expected at most 16 bits per channel. Received: values from {low} to {high}"
        )
    return ((array.astype(np.uint32) + 128) // 257).astype(np.uint8)  # 65535 -> 255, rounded


def _resize(image: Image.Image, width: int, height: int, fit: str, region: Region) -> Image.Image:
    box, size = framed(image.size, (height, width), fit, region)
    return image.resize(size, RESAMPLING, box, REDUCING_GAP)


def framed(
    size: tuple[int, int], image_size: tuple[int, int], fit: str, region: Region = WHOLE
) -> tuple[Region, tuple[int, int]]:
    """What is seen of a photo, and how large.

    Args:
        size: (width, height) of the photo in pixels.
        image_size, fit, region: as in `read_photo`.

    Returns:
        (left, top, right, bottom) of the part that is seen, in pixels of the photo, and the
        (width, height) in pixels that it comes out at.
    """
    height, width = image_size
    left, top, right, bottom = (share * side for share, side in zip(region, 2 * size, strict=True))
    across, down = right - left, bottom - top
    if fit in ("pad", "inside"):
        width, height = _scaled((across, down), width, height, fit)
    elif fit == "crop":
        scale = max(width / across, height / down)
        beside = max(0.0, (across - width / scale) / 2)
        above = max(0.0, (down - height / scale) / 2)
        left, top, right, bottom = left + beside, top + above, right - beside, bottom - above
    return (left, top, right, bottom), (width, height)


def upright_size(photo: bytes) -> tuple[int, int]:
    """(width, height) of the photo in an image file, turned upright; its pixels are not decoded.

    Raises:
        UnreadablePhoto: as `load_photo`.
    """
    try:
        image = _open(photo, "a photo")
    except UnreadablePhoto:
        raise
    except Exception as error:  # as in `_read`
        raise UnreadablePhoto("a photo", f"damaged: {error or type(error).__name__}") from error
    width, height = image.size
    return (height, width) if _orientation(image) > 4 else (width, height)
