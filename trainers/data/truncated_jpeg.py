"""Truncated JPEGs that do not look truncated, because an end marker was put behind what is left.

Decoders take such a file without an error and fill what is missing with one flat colour. Whether a
flat part is the photo's own is found out by putting more data before the end marker: a decoder that
has all it needs passes over them, one that has not makes something of them.
"""

from __future__ import annotations

from io import BytesIO
from os import PathLike
from pathlib import Path

import numpy as np
from PIL import Image

START, END = b"\xff\xd8", b"\xff\xd9"
MORE = bytes(range(255)) * 4  # begins with 0 and lacks 255: nothing that could be a marker
CORNER = 4  # pixels


def ends_early(photo: str | PathLike | bytes, pixels: np.ndarray) -> bool:
    """Whether a photo that was read without an error is a JPEG without its last part.

    What lacks less than a corner of `pixels` goes unnoticed, and so does a progressive JPEG that
    lacks whole passes: it is less sharp, but nothing of it is flat.

    Args:
        photo: the photo's file, or its bytes.
        pixels: the photo (h, w, 3), whole, of any size and orientation.
    """
    last = slice(-CORNER, None)
    corners = (pixels[y, x] for y in (last, slice(CORNER)) for x in (last, slice(CORNER)))
    if not any((corner == corner[0, 0]).all() for corner in corners):
        return False
    data = photo if isinstance(photo, bytes) else Path(photo).read_bytes()
    end = data.rfind(END)
    if not data.startswith(START) or end < 0:
        return False
    return _decoded(data) != _decoded(data[:end] + MORE + data[end:])


def _decoded(data: bytes) -> bytes | None:
    """The picture at an eighth of its size, which shows whether two differ; None without one."""
    try:
        image = Image.open(BytesIO(data), formats=["JPEG"])
        image.draft(None, (1, 1))
        return image.tobytes()
    except Exception:  # decoders raise anything
        return None
