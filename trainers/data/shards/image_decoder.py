"""Encoded photos into the images of a batch, by Pillow or by DALI."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol

import numpy as np

from effcap.images import Fit, UnreadablePhoto, read_photo
from effcap.trainers.data.augmentation import View

PLAIN = View()


Decoded = tuple[Any, dict[int, str]]  # images (B, h, w, 3) uint8; why, by row that failed


class Decoder(Protocol):
    """Decodes the photos of a batch; may be called from several threads."""

    name: str

    def decode(
        self, encoded: Sequence[bytes | None], views: Sequence[View], mirror: np.ndarray
    ) -> Decoded:
        """Photos as `views` say, mirrored where `mirror` (B,).

        Returns:
            Images (B, h, w, 3) uint8, black where there is no photo or where it cannot be decoded;
            and the reasons for the latter, by row.
        """


class PillowDecoder:
    """Decodes with Pillow, as `effcap.images.load_photo` does; runs anywhere.

    Args:
        image_size: height and width in pixels.
        fit: as in `load_photo`.
    """

    name = "pillow"

    def __init__(self, image_size: tuple[int, int], fit: Fit = "squash"):
        self.image_size, self.fit = image_size, fit

    def decode(
        self, encoded: Sequence[bytes | None], views: Sequence[View], mirror: np.ndarray
    ) -> Decoded:
        """See `Decoder`."""
        images = np.zeros((len(encoded), *self.image_size, 3), np.uint8)  # (B,h,w,3)
        failures = {}
        for row, (photo, view) in enumerate(zip(encoded, views, strict=True)):
            if photo is None:
                continue
            try:
                images[row] = self.decode_one(photo, view, mirror[row])
            except UnreadablePhoto as error:
                failures[row] = error.reason
        return images, failures

    def decode_one(self, photo: bytes, view: View, mirror: bool) -> np.ndarray:
        """One image (h, w, 3) uint8; raises UnreadablePhoto."""
        image = view.paint(read_photo(photo, self.image_size, self.fit, view.region))
        pixels = np.asarray(image)  # (h,w,3)
        return pixels[:, ::-1] if mirror else pixels


def make_decoder(
    name: str | None, image_size: tuple[int, int], fit: Fit, batch_size: int, threads: int
) -> Decoder:
    """A decoder by its name.

    Args:
        name: "dali" (on the GPU where there is one that DALI can use, else on the CPU), "dali-cpu",
            "dali-gpu", or "pillow"; None for DALI where it is installed and has a GPU, else Pillow,
            whose resizing is faster than DALI's on a CPU (`benchmarks/shard_readers.py`).
        image_size, fit: as in `load_photo`.
        batch_size: the most photos decoded at once.
        threads: of DALI.

    Raises:
        ValueError: for another name, or where DALI or its GPU are not there.
    """
    from effcap.trainers.data.shards.dali import DaliDecoder, dali_is_there, dali_sees_a_gpu

    if name is None:
        name = "dali" if dali_is_there() and dali_sees_a_gpu() else "pillow"
    if name == "pillow":
        return PillowDecoder(image_size, fit)
    if name not in DECODERS:
        raise ValueError(f"Expected a decoder out of {', '.join(DECODERS)}. Received: {name!r}")
    if not dali_is_there():
        raise ValueError(
            "Expected NVIDIA DALI for the decoder 'dali' (pip install 'effcap[dali]', Linux only); "
            f"the decoder 'pillow' runs everywhere. Received: {name!r} without it"
        )
    device = {"dali-cpu": "cpu", "dali-gpu": "gpu"}.get(name)
    return DaliDecoder(image_size, fit, batch_size, threads, device)


DECODERS = ("dali", "dali-cpu", "dali-gpu", "pillow")
