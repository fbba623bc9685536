"""Photos read from files while training."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np

from effcap.images import Fit, UnreadablePhoto, load_photo, read_photo
from effcap.trainers.data.augmentation import Augmentation, View
from effcap.trainers.data.example import CaptionedPhoto, Problem
from effcap.trainers.data.truncated_jpeg import ends_early
from effcap.utils.progress import track

PLAIN = View()
KEY_BYTES = 16  # of a photo in the record of those that were checked


class PhotoFiles:
    """Decodes and resizes photos when a batch asks for them.

    Args:
        paths: the photos' files.
        image_size: height and width in pixels.
        fit: how photos of another shape are brought to that size (see `effcap.load_photo`).
        augmentation: how photos are varied; by default not at all.
    """

    def __init__(
        self,
        paths: Sequence[Path],
        image_size: tuple[int, int],
        fit: Fit = "squash",
        augmentation: Augmentation | None = None,
    ):
        self.paths, self.image_size, self.fit = paths, image_size, fit
        self.augmentation = augmentation or Augmentation()

    @property
    def mirrored(self) -> bool:
        """Whether photos may be mirrored."""
        return self.augmentation.mirror

    @property
    def fingerprint(self) -> str:
        """A hash of the sizes of the files and of how they are read."""
        sizes = [os.path.getsize(path) for path in self.paths]
        state = repr((sizes, self.image_size, self.fit, self.augmentation))
        return hashlib.sha256(state.encode()).hexdigest()

    def load(
        self, photos: np.ndarray, mirror: np.ndarray, draws: np.ndarray | None = None
    ) -> dict[str, np.ndarray]:
        """`{"images"}`: (B, h, w, 3) uint8 of photos (B,), mirrored where `mirror` (B,).

        They are cropped and coloured as the random numbers `draws` (B,) say, or not at all.
        """
        images = np.empty((len(photos), *self.image_size, 3), np.uint8)  # (B,h,w,3)
        for i, photo in enumerate(photos):
            view = PLAIN if draws is None else self.augmentation.view(draws[i])
            image = read_photo(self.paths[photo], self.image_size, self.fit, view.region)
            images[i] = view.paint(image)
        images[mirror] = images[mirror, :, ::-1]
        return {"images": images}


def check_photos(
    photos: Sequence[CaptionedPhoto],
    image_size: tuple[int, int],
    threads: int | None = None,
    title: str | None = None,
    record: Path | None = None,
) -> tuple[list[CaptionedPhoto], list[Problem]]:
    """Decodes every photo once: (those that can be read, what is wrong with the others).

    Also finds JPEGs that lack their last part although they have an end marker.

    Args:
        photos: what to check.
        image_size: as in training.
        threads: photos decoded at the same time; by default one per core.
        title: of a progress bar; None for no bar.
        record: file that remembers good photos by path, size and time of modification: with the
            same file, they are not decoded again. None for no file.
    """
    known = _read_record(record)

    def check(photo: CaptionedPhoto) -> tuple[bytes, Problem | None]:
        key = b"" if record is None else _record_key(photo.path)  # before it may change
        reason = None if key in known else _why_unreadable(photo.path, image_size)
        return key, reason and Problem(str(photo.path), reason, len(photo.captions))

    pool = ThreadPoolExecutor(threads or os.cpu_count() or 1)
    try:
        checked = list(track(pool.map(check, photos), len(photos), title))
    finally:
        pool.shutdown(cancel_futures=True)
    if record is not None:
        _write_record(record, [key for key, problem in checked if problem is None])
    good = [photo for photo, (_, problem) in zip(photos, checked, strict=True) if problem is None]
    return good, [problem for _, problem in checked if problem is not None]


def _why_unreadable(path: Path, image_size: tuple[int, int]) -> str | None:
    try:
        pixels = load_photo(path, image_size)
    except UnreadablePhoto as error:
        return error.reason
    if ends_early(path, pixels):
        return "truncated: its data end before the picture does"
    return None


def _record_key(path: Path) -> bytes:
    """What changes when a file does; nothing for a file that is not there."""
    try:
        status = path.stat()
    except OSError:
        return b""
    key = f"{path.absolute()} {status.st_size} {status.st_mtime_ns}".encode(errors="replace")
    return hashlib.blake2b(key, digest_size=KEY_BYTES).digest()


def _read_record(record: Path | None) -> set[bytes]:
    data = record.read_bytes() if record is not None and record.is_file() else b""
    return {data[i : i + KEY_BYTES] for i in range(0, len(data), KEY_BYTES)}


def _write_record(record: Path, keys: Sequence[bytes]) -> None:
    record.parent.mkdir(parents=True, exist_ok=True)
    whole = record.with_suffix(".new")
    whole.write_bytes(b"".join(keys))
    whole.replace(record)
