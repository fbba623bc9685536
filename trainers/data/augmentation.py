"""Random changes of photos in training: crops, horizontal flips and color jitter."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from PIL import Image

from effcap.images import WHOLE, Region

MAX_STRETCH = 4 / 3  # largest change of a crop's aspect ratio
MAX_HUE_TURN = math.radians(15)  # at full strength; small because captions mention colors
LUMINANCE = np.array([0.299, 0.587, 0.114])


@dataclass(frozen=True)
class View:
    """A crop and a color transform of one photo.

    Attributes:
        region: part of the photo to read; see `effcap.images.read_photo`.
        color_matrix: a matrix (3, 4), flattened, that maps (red, green, blue, 1) to new colors;
            None for no change.
    """

    region: Region = WHOLE
    color_matrix: tuple[float, ...] | None = None

    def adjust_colors(self, image: Image.Image) -> Image.Image:
        """Applies the color transform to an RGB image."""
        return image if self.color_matrix is None else image.convert("RGB", self.color_matrix)


@dataclass(frozen=True, kw_only=True)
class Augmentation:
    """Random changes of photos in training.

    Attributes:
        horizontal_flip: whether to flip half of the photos horizontally, at random. Photos whose
            captions mention left or right are never flipped.
        random_crop: minimum fraction of a photo's area that a random crop keeps; 1 for no crops.
            The aspect ratio changes by up to a third. The crop is then fitted to the image size
            like a whole photo.
        color_jitter: strength of random color changes, from 0 to 1. Brightness, contrast and
            saturation change by factors from 1 - color_jitter to 1 + color_jitter, the hue by up
            to 15 degrees times color_jitter.

    Raises:
        ValueError: a value is out of range.
    """

    horizontal_flip: bool = False
    random_crop: float = 1.0
    color_jitter: float = 0.0

    def __post_init__(self) -> None:
        if not 0 < self.random_crop <= 1:
            raise ValueError(
                "Expected random_crop above 0 and at most 1. "
                f"Received: random_crop={self.random_crop}"
            )
        if not 0 <= self.color_jitter <= 1:
            raise ValueError(
                f"Expected color_jitter from 0 to 1. Received: color_jitter={self.color_jitter}"
            )

    def view(self, draw: int | np.uint64) -> View:
        """Returns the view that a random number determines."""
        rng = np.random.default_rng(draw)
        region = self._region(rng) if self.random_crop < 1 else WHOLE
        return View(region, self._color_matrix(rng) if self.color_jitter else None)

    def _region(self, rng: np.random.Generator) -> Region:
        area = rng.uniform(self.random_crop, 1)
        limit = math.log(min(MAX_STRETCH, 1 / area))  # no side may exceed the photo's
        ratio = math.exp(rng.uniform(-limit, limit))
        width, height = min(1.0, math.sqrt(area * ratio)), min(1.0, math.sqrt(area / ratio))
        left, top = rng.uniform(0, 1 - width), rng.uniform(0, 1 - height)
        return left, top, min(1.0, left + width), min(1.0, top + height)

    def _color_matrix(self, rng: np.random.Generator) -> tuple[float, ...]:
        """Combines all color changes into one matrix; contrast changes around mid-gray."""
        low, high = 1 - self.color_jitter, 1 + self.color_jitter
        brightness, contrast, saturation = rng.uniform(low, high, 3)
        turn = rng.uniform(-MAX_HUE_TURN, MAX_HUE_TURN) * self.color_jitter
        # Rotation around the gray axis (Rodrigues' formula).
        cross = np.array([[0, -1, 1], [1, 0, -1], [-1, 1, 0]]) / math.sqrt(3)  # (3,3)
        hue = np.eye(3) + math.sin(turn) * cross + (1 - math.cos(turn)) * cross @ cross  # (3,3)
        gray = np.outer(np.ones(3), LUMINANCE)  # (3,3)
        matrix = brightness * contrast * (gray + saturation * (np.eye(3) - gray)) @ hue  # (3,3)
        matrix = np.column_stack([matrix, np.full(3, 127.5 * (1 - contrast))])  # (3,4)
        return tuple(matrix.ravel().tolist())
