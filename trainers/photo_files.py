"""Photos read from files while training."""

from __future__ import annotations

import os
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np

from effcap.photos import UnreadablePhoto, load_photo
from effcap.trainers.captions import CaptionedPhoto, Problem
from effcap.trainers.progress import track


class PhotoFiles:
    """Decodes and resizes photos when a batch asks for them.

    Args:
        paths: the photos' files.
        image_size: height and width in pixels.
        mirrored: whether photos may be mirrored at random.
    """

    input_name = "images"

    def __init__(self, paths: Sequence[Path], image_size: tuple[int, int], mirrored: bool = False):
        self.paths, self.image_size, self.mirrored = paths, image_size, mirrored

    def load(self, photos: np.ndarray, mirror: np.ndarray) -> np.ndarray:
        """Images (B, h, w, 3) uint8 of photos (B,), mirrored where `mirror` (B,)."""
        images = np.stack([load_photo(self.paths[i], self.image_size) for i in photos])
        images[mirror] = images[mirror, :, ::-1]
        return images  # (B,h,w,3)


def check_photos(
    photos: Sequence[CaptionedPhoto],
    image_size: tuple[int, int],
    threads: int | None = None,
    title: str | None = None,
) -> tuple[list[CaptionedPhoto], list[Problem]]:
    """Decodes every photo once: (those that can be read, what is wrong with the others).

    Args:
        photos: what to check.
        image_size: as in training.
        threads: photos decoded at the same time; by default one per core.
        title: of a progress bar; None for no bar.
    """

    def problem(photo: CaptionedPhoto) -> Problem | None:
        try:
            load_photo(photo.path, image_size)
        except UnreadablePhoto as error:
            return Problem(str(photo.path), error.reason, len(photo.captions))
        return None

    pool = ThreadPoolExecutor(threads or os.cpu_count() or 1)
    try:
        found = list(track(pool.map(problem, photos), len(photos), title))
    finally:
        pool.shutdown(cancel_futures=True)
    good = [photo for photo, wrong in zip(photos, found, strict=True) if wrong is None]
    return good, [wrong for wrong in found if wrong is not None]
