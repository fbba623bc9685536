"""Decodes the encoded photos of a batch into images, with Pillow or NVIDIA DALI."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol

import numpy as np

from effcap.images import Fit, Resample, UnreadablePhoto, read_photo
from effcap.trainers.data.augmentation import View

IMAGE_DECODERS = ("dali", "dali-cpu", "dali-gpu", "pillow")

Decoded = tuple[Any, dict[int, str]]  # images (B, h, w, 3) uint8; reasons by row that failed


class ImageDecoder(Protocol):
    """Decodes the photos of a batch; safe in several threads.

    Attributes:
        name: name of the implementation, which is part of the fingerprint of batches.
    """

    name: str

    def decode(
        self, encoded: Sequence[bytes | None], views: Sequence[View], flip: np.ndarray
    ) -> Decoded:
        """Decodes photos, crops and colors them, and resizes them to the image size.

        Args:
            encoded: bytes of each photo; None for a row without a photo.
            views: crop and color transform of each photo.
            flip: (B,) bool, photos to flip horizontally.

        Returns:
            Images (B, h, w, 3) uint8, black where there is no photo or it cannot be decoded, and
            the reasons for the latter by row.
        """


class PillowDecoder:
    """Decodes with Pillow, like `effcap.images.load_photo`.

    Args:
        image_size: height and width in pixels.
        fit, resample: see `effcap.images.load_photo`.
    """

    name = "pillow"

    def __init__(
        self,
        image_size: tuple[int, int],
        fit: Fit = "squash",
        resample: Resample | None = None,
    ):
        self.image_size, self.fit, self.resample = image_size, fit, resample

    def decode(
        self, encoded: Sequence[bytes | None], views: Sequence[View], flip: np.ndarray
    ) -> Decoded:
        """Decodes photos; see `ImageDecoder.decode`."""
        images = np.zeros((len(encoded), *self.image_size, 3), np.uint8)  # (B, h, w, 3)
        failures = {}
        for row, (photo, view) in enumerate(zip(encoded, views, strict=True)):
            if photo is None:
                continue
            try:
                images[row] = self.decode_one(photo, view, flip[row])
            except UnreadablePhoto as error:
                failures[row] = error.reason
        return images, failures

    def decode_one(self, photo: bytes, view: View, flip: bool) -> np.ndarray:
        """Decodes one photo to an image (h, w, 3) uint8.

        Raises:
            UnreadablePhoto: the photo cannot be decoded.
        """
        image = read_photo(photo, self.image_size, self.fit, view.region, self.resample)
        pixels = np.asarray(view.adjust_colors(image))  # (h, w, 3)
        return pixels[:, ::-1] if flip else pixels


def fill_missing(images: np.ndarray, is_real: np.ndarray, rows_per_process: int) -> None:
    """Replaces missing images by the first real one of the same process, for batch statistics.

    Args:
        images: (B, h, w, 3), changed in place.
        is_real: (B,) bool, rows with an image.
        rows_per_process: number of adjacent rows of one process.
    """
    for start in range(0, len(is_real), rows_per_process):
        own = slice(start, start + rows_per_process)
        if is_real[own].any():
            images[own][~is_real[own]] = images[start + is_real[own].argmax()]
