"""The bytes of photos in shards: at any place of a local one, as a remote one streams by."""

from __future__ import annotations

import os
import threading
import time
import zlib
from collections import OrderedDict
from collections.abc import Sequence
from typing import IO

from effcap.trainers.data.shards.shard_index import ShardIndex, is_remote
from effcap.trainers.data.shards.tar import open_shard

OPEN_FILES = 64  # local shards held open
PAUSES = (0.2, 1.0, 5.0)  # seconds before what failed is tried again: networks stumble
CHUNK = 2**20  # bytes passed over at once in a stream


class LostPhoto(ValueError):
    """A photo that was there when its shard was indexed, and cannot be had now."""


class ShardFiles:
    """Local shards, read at any place, by several threads.

    What is read must be what was indexed, byte by byte: a shard may grow, and lose photos that are
    overwritten or cut off, without harm to the others.
    """

    def __init__(self, indexes: Sequence[ShardIndex]):
        self.indexes = indexes
        self._lock = threading.Lock()
        self._open: OrderedDict[int, IO[bytes]] = OrderedDict()

    def read(self, shard: int, sample: int) -> bytes:
        """The bytes of a photo; LostPhoto where they are not to be had."""
        index = self.indexes[shard]
        for pause in (*PAUSES, None):
            try:
                file = self._file(shard)
                data = os.pread(file.fileno(), int(index.sizes[sample]), int(index.offsets[sample]))
                return checked(data, index, sample)
            except FileNotFoundError:
                raise LostPhoto("its shard is gone") from None
            except OSError as error:
                self._forget(shard)
                if pause is None:
                    raise LostPhoto(f"its shard cannot be read: {error}") from error
                time.sleep(pause)
        raise AssertionError("unreachable")

    def _file(self, shard: int) -> IO[bytes]:
        """The shard, open; closed once nobody holds it any more."""
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


def checked(data: bytes, index: ShardIndex, sample: int) -> bytes:
    """The bytes of a photo, if they are those that were indexed; LostPhoto otherwise."""
    if len(data) < index.sizes[sample]:
        raise LostPhoto("its shard has been cut short")
    if zlib.crc32(data) != index.checksums[sample]:
        raise LostPhoto("its bytes have changed since it was indexed")
    return data


class ShardStream:
    """Remote shards, each read from its beginning to its end, through the webdataset package.

    Photos are asked for in the order in which they stand; what lies between them is passed over.
    One thread at a time.
    """

    def __init__(self, indexes: Sequence[ShardIndex]):
        self.indexes = indexes
        self._shard: int | None = None
        self._stream: IO[bytes] | None = None
        self._place = 0

    def read(self, shard: int, samples: Sequence[int]) -> list[bytes | LostPhoto]:
        """The bytes of photos of a shard, whose places `samples` ascend."""
        found: list[bytes | LostPhoto] = []
        for sample in samples:
            try:
                found.append(self._read_patiently(shard, sample))
            except LostPhoto as error:
                found.append(error)
                if self._stream is None:  # the shard itself is not to be had
                    found += [error] * (len(samples) - len(found))
                    break
        return found

    def _read_patiently(self, shard: int, sample: int) -> bytes:
        index = self.indexes[shard]
        for pause in (*PAUSES, None):
            try:
                data = self._read(shard, int(index.offsets[sample]), int(index.sizes[sample]))
                return checked(data, index, sample)
            except LostPhoto:
                raise
            except (OSError, ValueError) as error:
                self.close()
                if pause is None:
                    raise LostPhoto(f"its shard cannot be read: {error}") from error
                time.sleep(pause)
        raise AssertionError("unreachable")

    def _read(self, shard: int, offset: int, size: int) -> bytes:
        if self._stream is None or self._shard != shard or self._place > offset:
            self.close()
            self._stream = open_shard(self.indexes[shard].shard)
            self._shard, self._place = shard, 0
        while self._place < offset:
            self._take(min(CHUNK, offset - self._place))
        return self._take(size)

    def _take(self, size: int) -> bytes:
        parts = []
        while size:
            part = self._stream.read(size)
            if not part:
                raise OSError("it ends before the photo does")
            parts.append(part)
            size -= len(part)
            self._place += len(part)
        return parts[0] if len(parts) == 1 else b"".join(parts)

    def close(self) -> None:
        """Ends the stream, which may not have been read to its end."""
        if self._stream is not None:
            try:
                self._stream.close()
            except OSError:
                self._shard = None  # a command that was cut off says so
            self._stream = None


def split_remote(indexes: Sequence[ShardIndex]) -> set[int]:
    """Numbers of the shards that are not on this machine."""
    return {number for number, index in enumerate(indexes) if is_remote(index.shard)}
