"""Generates small shards with their indexes, for the tests of training on shards."""

from __future__ import annotations

import io
import tarfile
import zlib
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from PIL import Image

from effcap.trainers.data.shards.shard_index import IndexedSample, ShardIndex, index_path

WORDS = ("a", "the", "dog", "cat", "man", "woman", "red", "runs", "sits", "stands", "on", "grass")


def make_jpeg(number: int, size: tuple[int, int] = (40, 48)) -> bytes:
    """Returns a JPEG of one gray value, which identifies the photo."""
    file = io.BytesIO()
    Image.fromarray(np.full((*size, 3), shade(number), np.uint8)).save(file, "JPEG", quality=95)
    return file.getvalue()


def shade(number: int) -> int:
    """Returns the gray value of a photo; numbers go up to 50."""
    return 5 * number


def make_captions(number: int) -> tuple[str, ...]:
    """Returns one to three captions of different lengths."""
    rng = np.random.default_rng(number)
    return tuple(
        " ".join([f"photo {number}", *rng.choice(WORDS, rng.integers(3, 14))])
        for _ in range(1 + number % 3)
    )


def write_shard(path: Path, photos: Mapping[str, bytes]) -> ShardIndex:
    """Writes a tar of photos by key, each with its first caption, and returns its index.

    The keys are the photos' numbers.
    """
    with tarfile.open(path, "w") as tar:
        for key, encoded in photos.items():
            for name, data in (("jpg", encoded), ("txt", make_captions(int(key))[0].encode())):
                member = tarfile.TarInfo(f"{key}.{name}")
                member.size = len(data)
                tar.addfile(member, io.BytesIO(data))
    return write_index(path)


def write_index(path: Path) -> ShardIndex:
    """Writes the index of a tar from `write_shard`, without decoding its photos, and returns it."""
    with tarfile.open(path) as tar:
        samples = [
            IndexedSample(
                key,
                member.offset_data,
                member.size,
                zlib.crc32(tar.extractfile(member).read()),
                make_captions(int(key)),
            )
            for member in tar
            for key, suffix in [member.name.split(".")]
            if suffix == "jpg"
        ]
    status = path.stat()
    index = ShardIndex.from_samples(str(path), samples, status.st_size, status.st_mtime_ns)
    index.write(index_path(str(path)))
    return index


def write_shards(folder: Path, counts: Sequence[int]) -> list[Path]:
    """Writes one shard per count, with photos numbered across shards; returns their paths."""
    folder.mkdir(parents=True, exist_ok=True)
    paths, first = [], 0
    for number, count in enumerate(counts):
        path = folder / f"{number:05}.tar"
        write_shard(path, {f"{i:03}": make_jpeg(i) for i in range(first, first + count)})
        paths.append(path)
        first += count
    return paths
