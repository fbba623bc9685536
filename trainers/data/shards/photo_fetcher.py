"""Reads the encoded photos of shards: local ones at any offset, remote ones from a stream."""

from __future__ import annotations

import os
import threading
import time
import zlib
from collections import OrderedDict
from collections.abc import Sequence
from itertools import groupby
from typing import IO, BinaryIO

from effcap.trainers.data.shards.order import PhotoId
from effcap.trainers.data.shards.shard_index import ShardIndex, is_remote
from effcap.trainers.data.shards.tar import open_shard

OPEN_FILES = 64  # local shards kept open
PAUSES = (0.2, 1.0, 5.0)  # seconds before each retry
CHUNK = 2**20  # bytes skipped at once in a stream


class UnavailablePhoto(ValueError):
    """A photo that cannot be read, or differs from the indexed one."""


class PhotoFetcher:
    """Reads the encoded photos of local and remote shards.

    Args:
        indexes: indexes of the shards.

    Attributes:
        remote: numbers of the remote shards.
    """

    def __init__(self, indexes: Sequence[ShardIndex]):
        self.remote = {shard for shard, index in enumerate(indexes) if is_remote(index.shard)}
        self._indexes = indexes
        self._files = ShardFiles(indexes)
        self._streams: dict[int, ShardStream] = {}

    def fetch(self, photo: PhotoId) -> bytes | UnavailablePhoto:
        """Returns a photo of a local shard, or why it cannot be used; safe in several threads."""
        try:
            return self._files.read(photo)
        except UnavailablePhoto as error:
            return error

    def stream(
        self, photos: Sequence[PhotoId], number: int = 0
    ) -> dict[PhotoId, bytes | UnavailablePhoto]:
        """Returns the photos that are in remote shards, or why they cannot be used.

        Args:
            photos: photos in the order of the shards, since each shard is read front to back.
            number: number of the stream, which continues where it stopped. A stream must not be
                used by several threads at once.
        """
        fetched: dict[PhotoId, bytes | UnavailablePhoto] = {}
        for shard, group in groupby(dict.fromkeys(photos), key=lambda photo: photo.shard):
            if shard not in self.remote:
                continue
            if number not in self._streams:
                self._streams[number] = ShardStream(self._indexes)
            members = list(group)
            samples = [photo.sample for photo in members]
            fetched |= zip(members, self._streams[number].read(shard, samples), strict=True)
        return fetched

    def close(self, number: int) -> None:
        """Closes a stream, if it exists."""
        if number in self._streams:
            self._streams.pop(number).close()


class ShardFiles:
    """Local shards, read at any offset by several threads.

    The bytes are compared with the index. Photos that were overwritten or truncated do not affect
    the others, and data may be appended to a shard.
    """

    def __init__(self, indexes: Sequence[ShardIndex]):
        self.indexes = indexes
        self._lock = threading.Lock()
        self._open: OrderedDict[int, BinaryIO] = OrderedDict()

    def read(self, photo: PhotoId) -> bytes:
        """Returns an encoded photo.

        Raises:
            UnavailablePhoto: the photo cannot be read or has changed.
        """
        index, sample = self.indexes[photo.shard], photo.sample
        for pause in (*PAUSES, None):
            try:
                file = self._file(photo.shard)
                data = os.pread(file.fileno(), int(index.sizes[sample]), int(index.offsets[sample]))
                return verify(data, index, sample)
            except FileNotFoundError:
                raise UnavailablePhoto("the shard no longer exists") from None
            except OSError as error:
                self._forget(photo.shard)
                if pause is None:
                    raise UnavailablePhoto(f"the shard cannot be read: {error}") from error
                time.sleep(pause)
        raise AssertionError("unreachable")

    def _file(self, shard: int) -> BinaryIO:
        """Returns the open shard; a file closes when its last user drops it."""
        with self._lock:
            if shard in self._open:
                self._open.move_to_end(shard)
                return self._open[shard]
            path = self.indexes[shard].shard
            self._open[shard] = open(path, "rb", buffering=0)  # noqa: SIM115  kept open
            if len(self._open) > OPEN_FILES:
                self._open.popitem(last=False)
            return self._open[shard]

    def _forget(self, shard: int) -> None:
        with self._lock:
            self._open.pop(shard, None)


class ShardStream:
    """Remote shards, read one after the other from front to back with webdataset.

    Photos are requested in the order of the tar; the bytes between them are skipped. Not safe in
    several threads.
    """

    def __init__(self, indexes: Sequence[ShardIndex]):
        self.indexes = indexes
        self._shard: int | None = None
        self._stream: IO[bytes] | None = None
        self._position = 0

    def read(self, shard: int, samples: Sequence[int]) -> list[bytes | UnavailablePhoto]:
        """Returns photos of a shard, or why they cannot be used; `samples` should ascend."""
        photos: list[bytes | UnavailablePhoto] = []
        for sample in samples:
            try:
                photos.append(self._read_with_retries(shard, sample))
            except UnavailablePhoto as error:
                photos.append(error)
                if self._stream is None:  # the shard itself cannot be read
                    photos += [error] * (len(samples) - len(photos))
                    break
        return photos

    def _read_with_retries(self, shard: int, sample: int) -> bytes:
        index = self.indexes[shard]
        for pause in (*PAUSES, None):
            try:
                data = self._read(shard, int(index.offsets[sample]), int(index.sizes[sample]))
                return verify(data, index, sample)
            except UnavailablePhoto:
                raise
            except (OSError, ValueError) as error:
                self.close()
                if pause is None:
                    raise UnavailablePhoto(f"the shard cannot be read: {error}") from error
                time.sleep(pause)
        raise AssertionError("unreachable")

    def _read(self, shard: int, offset: int, size: int) -> bytes:
        if self._stream is None or self._shard != shard or self._position > offset:
            self.close()
            self._stream = open_shard(self.indexes[shard].shard)
            self._shard, self._position = shard, 0
        while self._position < offset:
            self._take(min(CHUNK, offset - self._position))
        return self._take(size)

    def _take(self, size: int) -> bytes:
        assert self._stream is not None
        chunks = []
        while size:
            chunk = self._stream.read(size)
            if not chunk:
                raise OSError("it ends before the photo does")
            chunks.append(chunk)
            size -= len(chunk)
            self._position += len(chunk)
        return chunks[0] if len(chunks) == 1 else b"".join(chunks)

    def close(self) -> None:
        """Closes the stream, which may not have been read to its end."""
        if self._stream is not None:
            try:
                self._stream.close()
            except OSError:
                self._shard = None  # the command reports the broken pipe
            self._stream = None


def verify(data: bytes, index: ShardIndex, sample: int) -> bytes:
    """Returns the bytes of a photo if they are the indexed ones.

    Raises:
        UnavailablePhoto: the bytes are truncated or have changed.
    """
    if len(data) < index.sizes[sample]:
        raise UnavailablePhoto("the shard was truncated")
    if zlib.crc32(data) != index.checksums[sample]:
        raise UnavailablePhoto("its bytes have changed since it was indexed")
    return data
