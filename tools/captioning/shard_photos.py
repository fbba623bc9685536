"""The photos of shards as batches of pixels, read and decoded in threads ahead of their use."""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import islice
from pathlib import PurePosixPath
from typing import NamedTuple, TypeVar

import numpy as np

from effcap.images import IMAGE_SUFFIXES, LARGEST_FILE, Fit, UnreadablePhoto, load_photo
from effcap.trainers.data.shards.tar import Member, TarWalk, open_shard
from effcap.trainers.data.truncated_jpeg import ends_early

BATCHES_AHEAD = 2
Item = TypeVar("Item")


class ShardPhoto(NamedTuple):
    """A photo of a shard: the bytes of its file, or the reason why there are none."""

    key: str
    data: bytes
    error: str = ""


@dataclass(frozen=True)
class PhotoBatch:
    """Photos that follow each other in a shard.

    Attributes:
        keys: of all photos, N of which can be read.
        errors: why a photo cannot be read, for each key; empty where it can.
        images: (N,h,w,3) uint8, those that can be read.
        position: bytes of the tar up to the end of the last photo.
    """

    keys: list[str]
    errors: list[str]
    images: np.ndarray
    position: int


@dataclass(frozen=True)
class ShardEnd:
    """All photos of a shard were given.

    Attributes:
        shard: path or URL.
        tar_bytes: its size.
        note: what is wrong with the tar behind the photos; empty for a whole one.
        problem: why it could not be read to its end, so that the photos given are not all.
    """

    shard: str
    tar_bytes: int = 0
    note: str = ""
    problem: str = ""


def read_batches(
    shards: Sequence[str], image_size: tuple[int, int], fit: Fit, batch_size: int
) -> Iterator[PhotoBatch | ShardEnd]:
    """The photos of one shard after the other.

    Args:
        shards: paths and URLs.
        image_size: (height, width) in pixels.
        fit: as in `load_photo`.
        batch_size: N, the photos in a batch that can be read; fewer only in a shard's last.

    Returns:
        The batches of a shard, then its `ShardEnd`.
    """

    def decode(photo: ShardPhoto) -> np.ndarray | str:
        if photo.error:
            return photo.error
        try:
            pixels = load_photo(photo.data, image_size, fit)  # (h,w,3)
        except UnreadablePhoto as error:
            return error.reason
        if ends_early(photo.data, pixels):
            return "truncated: its data end before the picture does"
        return pixels

    def batches(photos: Iterator[ShardPhoto], walk: TarWalk) -> Iterator[PhotoBatch]:
        while True:
            keys, errors, images = [], [], []
            while group := list(islice(photos, batch_size - len(images))):
                for photo, decoded in zip(group, pool.map(decode, group), strict=True):
                    keys.append(photo.key)
                    errors.append(decoded if isinstance(decoded, str) else "")
                    if not isinstance(decoded, str):
                        images.append(decoded)
            if not keys:
                return
            stacked = np.stack(images) if images else np.empty((0, *image_size, 3), np.uint8)
            yield PhotoBatch(keys, errors, stacked, walk.size)  # images (N,h,w,3)

    with ThreadPoolExecutor(os.cpu_count()) as pool:
        for shard in shards:
            try:
                with open_shard(shard) as file:
                    walk = TarWalk(file)
                    yield from batches(read_photos(walk), walk)
                yield ShardEnd(shard, walk.size, walk.note)
            except (OSError, ValueError) as error:
                yield ShardEnd(shard, problem=str(error))


def read_photos(walk: TarWalk) -> Iterator[ShardPhoto]:
    """The photo of each sample of a tar, in their order; samples without a photo are passed over.

    A sample is the members whose names differ in the last suffix alone. Of several photos side by
    side, that with the first suffix in IMAGE_SUFFIXES counts. A name that comes again is an error.
    """
    seen: dict[str, list[str]] = {}  # suffixes by key
    photo, suffix = None, ""
    for member in walk:
        path = PurePosixPath(member.name)
        other = path.suffix.lower()
        if other not in IMAGE_SUFFIXES or member.kind == "other":
            continue
        key = member.name.removesuffix(path.suffix)
        suffixes = seen.setdefault(key, [])
        again = other in suffixes
        if photo is not None and (again or photo.key != key):
            yield photo
            photo = None
        if again:
            yield ShardPhoto(key, b"", f"{path.name} is there more than once")
            continue
        suffixes.append(other)
        is_first = len(suffixes) == 1
        if is_first or (photo is not None and _before(other, suffix)):
            photo, suffix = _read(walk, member, key), other
    if photo is not None:
        yield photo


def _before(suffix: str, other: str) -> bool:
    return IMAGE_SUFFIXES.index(suffix) < IMAGE_SUFFIXES.index(other)


def _read(walk: TarWalk, member: Member, key: str) -> ShardPhoto:
    if member.kind != "file":
        return ShardPhoto(key, b"", f"{member.name} is a {member.kind}, no file of its own")
    if member.size > LARGEST_FILE:
        return ShardPhoto(key, b"", f"{member.name} is too large: {member.size} bytes")
    data = walk.read()
    if data is None:
        return ShardPhoto(key, b"", f"the shard ends within {member.name}")
    return ShardPhoto(key, data)


def ahead(items: Iterable[Item], count: int = BATCHES_AHEAD) -> Iterator[Item]:
    """`items`, up to `count` of them made in a thread while an earlier one is used."""
    items = iter(items)
    thread = ThreadPoolExecutor(1)
    waiting: deque = deque()
    try:
        while True:
            while len(waiting) < count:
                waiting.append(thread.submit(next, items, None))
            item = waiting.popleft().result()
            if item is None:
                return
            yield item
    finally:
        thread.shutdown(cancel_futures=True)
