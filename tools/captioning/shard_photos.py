"""Reads the photos of shards in batches, decoded and prefetched in threads."""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from itertools import islice
from pathlib import PurePosixPath
from typing import NamedTuple, TypeVar

import numpy as np

from effcap.images import (
    IMAGE_SUFFIXES,
    LARGEST_FILE,
    Fit,
    Resample,
    UnreadablePhoto,
    load_photo,
)
from effcap.trainers.data.shards.tar import TarMember, TarReader, open_shard
from effcap.trainers.data.truncated_jpeg import TRUNCATED, ends_early

PREFETCHED_BATCHES = 2
Item = TypeVar("Item")


class ShardPhoto(NamedTuple):
    """A photo of a shard: the bytes of its file, or the error if it cannot be read."""

    key: str
    data: bytes
    error: str = ""


@dataclass(frozen=True)
class PhotoBatch:
    """Consecutive photos of a shard, N of which can be read.

    Attributes:
        keys: keys of all photos.
        errors: for each key, why the photo cannot be read, or "".
        images: (N, h, w, 3) uint8, the photos that can be read.
        position: number of bytes of the tar read so far.
    """

    keys: list[str]
    errors: list[str]
    images: np.ndarray
    position: int


@dataclass(frozen=True)
class ShardEnd:
    """The end of a shard, after all its batches.

    Attributes:
        shard: path or URL.
        tar_bytes: size of the tar.
        damage: what is wrong with the tar after the last photo, or "".
        error: why the shard could not be read to its end, or "".
    """

    shard: str
    tar_bytes: int = 0
    damage: str = ""
    error: str = ""


def read_batches(
    shards: Sequence[str],
    image_size: tuple[int, int],
    fit: Fit,
    batch_size: int,
    resample: Resample | None = None,
) -> Iterator[PhotoBatch | ShardEnd]:
    """Yields the batches of each shard, followed by its `ShardEnd`.

    Args:
        shards: paths and URLs.
        image_size: (height, width) in pixels.
        fit: see `effcap.images.load_photo`.
        batch_size: number N of readable photos in a batch; only the last one of a shard has fewer.
        resample: see `effcap.images.load_photo`.
    """

    def decode(photo: ShardPhoto) -> np.ndarray | str:
        if photo.error:
            return photo.error
        try:
            pixels = load_photo(photo.data, image_size, fit, resample)  # (h, w, 3)
        except UnreadablePhoto as error:
            return error.reason
        if ends_early(photo.data, pixels):
            return TRUNCATED
        return pixels

    def batches(photos: Iterator[ShardPhoto], reader: TarReader) -> Iterator[PhotoBatch]:
        while True:
            keys: list[str] = []
            errors: list[str] = []
            images: list[np.ndarray] = []
            while group := list(islice(photos, batch_size - len(images))):
                for photo, decoded in zip(group, pool.map(decode, group), strict=True):
                    keys.append(photo.key)
                    errors.append(decoded if isinstance(decoded, str) else "")
                    if not isinstance(decoded, str):
                        images.append(decoded)
            if not keys:
                return
            stacked = np.stack(images) if images else np.empty((0, *image_size, 3), np.uint8)
            yield PhotoBatch(keys, errors, stacked, reader.size)  # images (N, h, w, 3)

    with ThreadPoolExecutor(os.cpu_count()) as pool:
        for shard in shards:
            try:
                with open_shard(shard) as file:
                    reader = TarReader(file)
                    yield from batches(read_photos(reader), reader)
                yield ShardEnd(shard, reader.size, reader.damage)
            except (OSError, ValueError) as error:
                yield ShardEnd(shard, error=str(error))


def read_photos(reader: TarReader) -> Iterator[ShardPhoto]:
    """Yields the photo of each sample of a tar in order; samples without a photo are skipped.

    A sample is the members whose names differ only in the last suffix. Of several adjacent photos,
    the one whose suffix is first in IMAGE_SUFFIXES is used. A repeated name is an error.
    """
    suffixes_by_key: dict[str, list[str]] = {}
    photo, suffix = None, ""
    for member in reader:
        path = PurePosixPath(member.name)
        new_suffix = path.suffix.lower()
        if new_suffix not in IMAGE_SUFFIXES or member.kind == "other":
            continue
        key = member.name.removesuffix(path.suffix)
        suffixes = suffixes_by_key.setdefault(key, [])
        is_repeated = new_suffix in suffixes
        if photo is not None and (is_repeated or photo.key != key):
            yield photo
            photo = None
        if is_repeated:
            yield ShardPhoto(key, b"", f"{path.name} occurs more than once")
            continue
        suffixes.append(new_suffix)
        is_first = len(suffixes) == 1
        if is_first or (photo is not None and _precedes(new_suffix, suffix)):
            photo, suffix = _read(reader, member, key), new_suffix
    if photo is not None:
        yield photo


def _precedes(suffix: str, other: str) -> bool:
    return IMAGE_SUFFIXES.index(suffix) < IMAGE_SUFFIXES.index(other)


def _read(reader: TarReader, member: TarMember, key: str) -> ShardPhoto:
    if member.kind != "file":
        return ShardPhoto(key, b"", f"{member.name} is a {member.kind}, not a regular file")
    if member.size > LARGEST_FILE:
        return ShardPhoto(key, b"", f"{member.name} is too large: {member.size} bytes")
    data = reader.read()
    if data is None:
        return ShardPhoto(key, b"", f"the shard ends within {member.name}")
    return ShardPhoto(key, data)


def prefetch(items: Iterable[Item], count: int = PREFETCHED_BATCHES) -> Iterator[Item]:
    """Yields `items`, up to `count` of them made in a thread while an earlier one is used."""
    items = iter(items)
    thread = ThreadPoolExecutor(1)
    pending: deque[Future[Item | None]] = deque()
    try:
        while True:
            while len(pending) < count:
                pending.append(thread.submit(next, items, None))
            item = pending.popleft().result()
            if item is None:
                return
            yield item
    finally:
        thread.shutdown(cancel_futures=True)
