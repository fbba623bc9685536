"""Photos: from files, bytes, arrays or Pillow images to pixels of a model's size.

Imports NumPy and Pillow, no Keras.
"""

from __future__ import annotations

from effcap.images.collections import as_photos
from effcap.images.framing import WHOLE, Fit, Region, Resample, visible_box
from effcap.images.loading import (
    load_ahead,
    load_photo,
    load_photos,
    load_thumbnail,
    read_photo,
)
from effcap.images.opening import FORMATS, LARGEST_FILE, Photo, upright_size
from effcap.images.stored_photo import StoredPhoto
from effcap.images.unreadable_photo import UnreadablePhoto
from effcap.utils.find_files import IMAGE_SUFFIXES

__all__ = [
    "FORMATS",
    "IMAGE_SUFFIXES",
    "LARGEST_FILE",
    "WHOLE",
    "Fit",
    "Photo",
    "Region",
    "Resample",
    "StoredPhoto",
    "UnreadablePhoto",
    "as_photos",
    "load_ahead",
    "load_photo",
    "load_photos",
    "load_thumbnail",
    "read_photo",
    "upright_size",
    "visible_box",
]
