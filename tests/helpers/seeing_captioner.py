"""A tiny captioner whose captions depend on the photo, and photos that it tells apart."""

from __future__ import annotations

import io

import numpy as np
from PIL import Image

from effcap.captioner import Captioner
from helpers.captioners import randomize
from helpers.data_maker import make_captioner


def seeing_captioner() -> Captioner:
    """As `make_captioner`, with weights in every part."""
    return randomize(make_captioner())


def coloured(seed: int) -> bytes:
    """A JPEG of four squares in random colours."""
    colours = np.random.default_rng(seed).integers(0, 256, (2, 2, 3), np.uint8)  # (h,w,3)
    file = io.BytesIO()
    Image.fromarray(colours).resize((48, 40), Image.Resampling.NEAREST).save(file, "JPEG")
    return file.getvalue()
