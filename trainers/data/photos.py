"""Dataset of photo files, with their loader and check."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from effcap.images import Fit, Resample, StoredPhoto, UnreadablePhoto, load_photo, read_photo
from effcap.trainers.data.augmentation import Augmentation, View
from effcap.trainers.data.dataset import CheckedExamples, ExampleDataset, photo_encoder
from effcap.trainers.data.example import Example, Problem
from effcap.trainers.data.truncated_jpeg import TRUNCATED, ends_early
from effcap.trainers.options.batches import BatchOptions
from effcap.utils.progress import track

if TYPE_CHECKING:
    from effcap.captioner import Captioner

KEY_BYTES = 16  # per photo in the record of checked photos


class PhotoFiles:
    """Decodes and resizes the photos of each batch; an `InputLoader`.

    Args:
        photos: files of the photos, or stored photos.
        image_size: height and width in pixels.
        fit: how photos of other shapes are fitted to that size; see `effcap.load_photo`.
        augmentation: random changes of the photos; none by default.
        resample: filter that resizes them; see `effcap.load_photo`.
    """

    def __init__(
        self,
        photos: Sequence[Path | StoredPhoto],
        image_size: tuple[int, int],
        fit: Fit = "squash",
        augmentation: Augmentation | None = None,
        resample: Resample | None = None,
    ):
        self.photos, self.image_size, self.fit = photos, image_size, fit
        self.resample = resample
        self.augmentation = augmentation or Augmentation()

    @property
    def can_flip(self) -> bool:
        """Returns whether photos may be flipped horizontally."""
        return self.augmentation.horizontal_flip

    @property
    def fingerprint(self) -> str:
        """A hash of the photos' sizes in bytes and of all arguments except the photos."""
        sizes = [photo_key(photo)[1] for photo in self.photos]
        state: tuple[Any, ...] = (sizes, self.image_size, self.fit, self.augmentation)
        if self.resample is not None:
            state = (*state, self.resample)
        return hashlib.sha256(repr(state).encode()).hexdigest()

    def load(
        self, indices: np.ndarray, flip: np.ndarray, draws: np.ndarray | None = None
    ) -> dict[str, np.ndarray]:
        """Loads photos.

        Args:
            indices: indices of the photos, (B,).
            flip: which photos to flip horizontally, (B,) bool.
            draws: random numbers (B,) that determine crops and colors; None for whole photos in
                their own colors.

        Returns:
            {"images": (B, h, w, 3) uint8}.

        Raises:
            UnreadablePhoto: a photo cannot be decoded.
        """
        images = np.empty((len(indices), *self.image_size, 3), np.uint8)  # (B,h,w,3)
        for i, index in enumerate(indices):
            view = View() if draws is None else self.augmentation.view(draws[i])
            image = read_photo(
                self.photos[index], self.image_size, self.fit, view.region, self.resample
            )
            images[i] = np.asarray(view.adjust_colors(image))
        images[flip] = images[flip, :, ::-1]
        return {"images": images}


@dataclass(frozen=True)
class PhotoDataset(ExampleDataset):
    """Photos with captions; `read_csv`, `read_json`, `read_folder` and `read_dataset` return it.

    Example:
        >>> dataset = read_csv("train.csv", "photos")
        >>> captioner.fit(dataset.batches(captioner, batch_size=16), epochs=3, shuffle=False)
    """

    def check(self, captioner: Captioner, options: BatchOptions) -> CheckedExamples:
        """Decodes every photo once."""
        encoder = photo_encoder(captioner)
        examples, problems = check_photos(
            self.examples,
            encoder.image_size,
            title=f"checking {options.name} photos",
            record=options.record_file(".bin"),
        )
        photos = [example.photo for example in examples]
        loader = PhotoFiles(
            photos, encoder.image_size, encoder.fit, options.augmentation, encoder.resample
        )
        return CheckedExamples(examples, loader, problems)


def check_photos(
    examples: Sequence[Example],
    image_size: tuple[int, int],
    *,
    num_threads: int | None = None,
    title: str | None = None,
    record: Path | None = None,
) -> tuple[list[Example], list[Problem]]:
    """Decodes every photo once.

    JPEGs that lack their last part, although they have an end marker, are problems too.

    Args:
        examples: photos to check.
        image_size: height and width in training, in pixels.
        num_threads: photos decoded in parallel; None for one per CPU core.
        title: title of a progress bar; None for no bar.
        record: file that records readable photos by path, size and modification time, so that the
            next call does not decode them again; None for no file.

    Returns:
        (readable examples, problems of the others).
    """
    known = _read_record(record)

    def check(example: Example) -> tuple[bytes, Problem | None]:
        key = b"" if record is None else _record_key(example.photo)  # before a file may change
        reason = None if key in known else _find_fault(example.photo, image_size)
        if reason is None:
            return key, None
        return key, Problem(str(example.path), reason, len(example.captions))

    pool = ThreadPoolExecutor(num_threads or os.cpu_count() or 1)
    try:
        results = list(track(pool.map(check, examples), len(examples), title))
    finally:
        pool.shutdown(cancel_futures=True)
    if record is not None:
        _write_record(record, [key for key, problem in results if problem is None])
    problems = [problem for _, problem in results if problem is not None]
    readable = [
        example for example, (_, problem) in zip(examples, results, strict=True) if problem is None
    ]
    return readable, problems


def photo_key(photo: Path | StoredPhoto) -> tuple[str, int, int]:
    """Returns path, or name of a stored photo, size in bytes and time of modification.

    Raises:
        OSError: the file does not exist.
    """
    if isinstance(photo, StoredPhoto):
        return photo.name, photo.size, photo.time_ns
    status = photo.stat()
    return str(photo.absolute()), status.st_size, status.st_mtime_ns


def _find_fault(photo: Path | StoredPhoto, image_size: tuple[int, int]) -> str | None:
    """Returns why a photo cannot be used, or None."""
    try:
        content = photo.read() if isinstance(photo, StoredPhoto) else photo
        pixels = load_photo(content, image_size)
    except UnreadablePhoto as error:
        return error.reason
    if ends_early(content, pixels):
        return TRUNCATED
    return None


def _record_key(photo: Path | StoredPhoto) -> bytes:
    """Returns a hash of `photo_key`; b"" if the file does not exist."""
    try:
        key = " ".join(map(str, photo_key(photo)))
    except OSError:
        return b""
    return hashlib.blake2b(key.encode(errors="replace"), digest_size=KEY_BYTES).digest()


def _read_record(record: Path | None) -> set[bytes]:
    data = record.read_bytes() if record is not None and record.is_file() else b""
    return {data[i : i + KEY_BYTES] for i in range(0, len(data), KEY_BYTES)}


def _write_record(record: Path, keys: Sequence[bytes]) -> None:
    record.parent.mkdir(parents=True, exist_ok=True)
    new = record.with_suffix(".new")
    new.write_bytes(b"".join(keys))
    new.replace(record)
