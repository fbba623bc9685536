"""Photos seen a little differently in each epoch: random crops, mirrored, in other light."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from PIL import Image

from effcap.images import WHOLE, Region

WIDEST = 4 / 3  # most that a crop is stretched against the photo's own proportions
TURN = math.radians(15)  # turn of the hue at full strength: captions speak of colours
LUMINANCE = np.array([0.299, 0.587, 0.114])


@dataclass(frozen=True)
class View:
    """What is read of a photo, and in which light.

    Attributes:
        region: as in `effcap.images.read_photo`.
        colours: a matrix (3, 4), row by row, that new colours are of (red, green, blue, 1); None
            for no change.
    """

    region: Region = WHOLE
    colours: tuple[float, ...] | None = None

    def paint(self, image: Image.Image) -> Image.Image:
        """An RGB image in the view's light."""
        return image if self.colours is None else image.convert("RGB", self.colours)


@dataclass(frozen=True, kw_only=True)
class Augmentation:
    """How photos are varied in training.

    Attributes:
        mirror: mirror every second photo, at random, but none whose captions say left or right.
        crop: least share of a photo's area that a random crop keeps, its proportions changed by up
            to a third; 1 for no crops. What is cropped is then treated as the whole photo is.
        colour: strength of random changes of brightness, contrast and saturation, each by a factor
            from 1 - colour to 1 + colour, and of the hue by up to 15 degrees * colour; 0 for none,
            up to 1.

    Raises:
        ValueError: for a value out of range.
    """

    mirror: bool = False
    crop: float = 1.0
    colour: float = 0.0

    def __post_init__(self):
        if not 0 < self.crop <= 1:
            raise ValueError(f"Expected crop above 0 and at most 1. Received: crop={self.crop}")
        if not 0 <= self.colour <= 1:
            raise ValueError(f"Expected colour from 0 to 1. Received: colour={self.colour}")

    def view(self, draw: int) -> View:
        """The view of a photo that a random number stands for: same number, same view."""
        random = np.random.default_rng(draw)
        region = self._region(random) if self.crop < 1 else WHOLE
        return View(region, self._colours(random) if self.colour else None)

    def _region(self, random: np.random.Generator) -> Region:
        area = random.uniform(self.crop, 1)
        widest = math.log(min(WIDEST, 1 / area))  # no side may be longer than the photo's
        ratio = math.exp(random.uniform(-widest, widest))
        width, height = min(1.0, math.sqrt(area * ratio)), min(1.0, math.sqrt(area / ratio))
        left, top = random.uniform(0, 1 - width), random.uniform(0, 1 - height)
        return left, top, min(1.0, left + width), min(1.0, top + height)

    def _colours(self, random: np.random.Generator) -> tuple[float, ...]:
        """All changes of colour in one matrix; the contrast is changed about mid-grey."""
        brightness, contrast, saturation = random.uniform(1 - self.colour, 1 + self.colour, 3)
        turn = random.uniform(-TURN, TURN) * self.colour
        # A turn about the axis of greys (Rodrigues' formula).
        across = np.array([[0, -1, 1], [1, 0, -1], [-1, 1, 0]]) / math.sqrt(3)
        hue = np.eye(3) + math.sin(turn) * across + (1 - math.cos(turn)) * across @ across
        grey = np.outer(np.ones(3), LUMINANCE)
        matrix = brightness * contrast * (grey + saturation * (np.eye(3) - grey)) @ hue  # (3,3)
        matrix = np.column_stack([matrix, np.full(3, 127.5 * (1 - contrast))])  # (3,4)
        return tuple(matrix.ravel().tolist())
