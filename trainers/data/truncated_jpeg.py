"""Detects truncated JPEGs that have an end marker.

Decoders accept such a file and fill the missing part with one flat color. To distinguish it from
a photo with a flat corner, more data is inserted before the end marker: it is decoded only if the
image is incomplete.
"""

from __future__ import annotations

from io import BytesIO
from os import PathLike
from pathlib import Path

import numpy as np
from PIL import Image

START, END = b"\xff\xd8", b"\xff\xd9"
FILLER = bytes(range(255)) * 4  # begins with 0 and lacks 255, so it contains no marker
CORNER = 4  # pixels
TRUNCATED = "truncated: the file ends before the image is complete"  # reason in messages


def ends_early(photo: str | PathLike[str] | bytes, pixels: np.ndarray) -> bool:
    """Returns whether a photo that was decoded without an error is a truncated JPEG.

    A missing part smaller than a corner of `pixels` is not detected, nor are missing passes of a
    progressive JPEG, which blur the photo but leave no flat part.

    Args:
        photo: file of the photo, or its bytes.
        pixels: the whole decoded photo (h, w, 3), of any size and orientation.
    """
    last = slice(-CORNER, None)
    corners = (pixels[y, x] for y in (last, slice(CORNER)) for x in (last, slice(CORNER)))
    if not any((corner == corner[0, 0]).all() for corner in corners):
        return False
    data = photo if isinstance(photo, bytes) else Path(photo).read_bytes()
    end = data.rfind(END)
    if not data.startswith(START) or end < 0:
        return False
    return _decode(data) != _decode(data[:end] + FILLER + data[end:])


def _decode(data: bytes) -> bytes | None:
    """Decodes at an eighth of the size, which is enough to compare; None if that fails."""
    try:
        image = Image.open(BytesIO(data), formats=["JPEG"])
        image.draft(None, (1, 1))
        return image.tobytes()
    except Exception:  # decoders raise any exception
        return None
