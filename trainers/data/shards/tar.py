"""Reads the members of tar files and streams.

Headers are parsed by the standard library, so that long names in GNU and PAX format are complete
and offsets are correct. A tar is read once, from front to back, and truncation is detected.
"""

from __future__ import annotations

import shlex
import tarfile
from collections.abc import Callable, Iterator
from typing import Any, BinaryIO, Literal, NamedTuple

from effcap.images import LARGEST_FILE
from effcap.trainers.data.shards.shard_index import is_remote

BLOCK = 512  # bytes of a header; contents are padded to a multiple of it
CHUNK = 2**20  # bytes
COMPRESSIONS = {
    b"\x1f\x8b": "gzip", b"BZh": "bzip2", b"\xfd7zXZ\0": "xz", b"\x28\xb5\x2f\xfd": "zstd",
    b"PK\x03\x04": "zip",
}  # fmt: skip
Kind = Literal["file", "link", "sparse file", "other"]


class NotATar(ValueError):
    """A shard that is empty, compressed or not a tar."""


class TarMember(NamedTuple):
    """A member of a tar: its name, kind, and the offset and size of its contents in bytes."""

    name: str
    kind: Kind
    offset: int
    size: int


class TarReader:
    """Iterates over the members of a tar; `read` returns the contents of the current member.

    Args:
        file: file opened in binary mode; it does not have to be seekable.
        advance: called with the number of bytes read since the last call.

    Attributes:
        damage: after the iteration, a description of what is wrong with the tar, or "".

    Raises:
        NotATar: the file is empty, compressed or not a tar.
    """

    def __init__(self, file: BinaryIO, advance: Callable[[int], None] | None = None):
        self.damage = ""
        self._source = _Source(file, advance or (lambda count: None))
        self._member: TarMember | None = None
        self._info: tarfile.TarInfo | None = None
        try:
            self._tar: Any = tarfile.TarFile(
                fileobj=self._source,  # type: ignore[arg-type]
                mode="r",
                encoding="utf-8",
                errors="surrogateescape",
            )
            # In Python 3.10, next() fails on a tar without members.
            has_members = self._tar.firstmember is not None  # type: ignore[attr-defined]
            self._next = self._tar.next() if has_members else None
        except _DAMAGED as error:
            raise NotATar(_why_not_a_tar(self._source.last, error)) from None

    @property
    def size(self) -> int:
        """Number of bytes read so far."""
        return self._source.position

    @property
    def info(self) -> tarfile.TarInfo:
        """The current member, as the standard library describes it."""
        assert self._info is not None
        return self._info

    @property
    def span(self) -> tuple[int, int]:
        """Offsets of the first byte of the current member's headers and behind its contents."""
        return self.info.offset, self._tar.offset

    def __iter__(self) -> Iterator[TarMember]:
        while self._next is not None:
            self._info, self._member = self._next, _member(self._next)
            yield self._member
            self._tar.members.clear()  # tarfile would keep all of them
            try:
                self._next = self._tar.next()
            except _DAMAGED:
                self._next = None
                self.damage = self._truncation()
        self.damage = self.damage or self._damage_at_end()
        self._source.drain()

    def read(self) -> bytes | None:
        """Returns the contents of the current member; None if the tar ends within it."""
        assert self._member is not None
        self._source.seek(self._member.offset)
        data = self._source.read(self._member.size)
        return data if len(data) == self._member.size else None

    def _truncation(self) -> str:
        last = self._member.name if self._member else ""
        return f"truncated after {self.size} bytes, within or after {last!r}"

    def _damage_at_end(self) -> str:
        """Describes what is wrong after the last member, judging by the last header."""
        last = self._source.last
        if not last:
            return f"no end mark after {self.size} bytes, possibly truncated"
        if len(last) < BLOCK:
            return self._truncation()
        if last.strip(b"\0"):
            return f"damaged header at byte {self.size - BLOCK}, the rest is not read"
        if self._source.drain():
            return f"more data after the end mark at byte {self._tar.offset}, not read"
        return ""


_DAMAGED = (tarfile.TarError, ValueError, OverflowError, EOFError)


class _Source:
    """A file that `tarfile` and `TarReader` read together, from front to back."""

    def __init__(self, file: BinaryIO, advance: Callable[[int], None]):
        self.file, self.advance = file, advance
        self.position = 0
        self.last = b""

    def tell(self) -> int:
        return self.position

    def read(self, size: int) -> bytes:
        """Returns `size` bytes, fewer only at the end of the file."""
        if size > LARGEST_FILE:
            raise tarfile.ReadError(f"{size} bytes in one piece")
        chunks, missing = [], size
        while missing > 0:
            chunk = self.file.read(min(missing, CHUNK))
            if not chunk:
                break
            chunks.append(chunk)
            missing -= len(chunk)
        self.last = b"".join(chunks)
        self.position += len(self.last)
        self.advance(len(self.last))
        return self.last

    def seek(self, position: int) -> None:
        """Skips to `position`, or to the end of a shorter file."""
        if position < self.position:
            raise tarfile.ReadError("a header points backwards")
        while self.position < position:
            if not self.read(min(position - self.position, CHUNK)):
                break

    def drain(self) -> bool:
        """Reads to the end and returns whether there was anything but zeros."""
        has_data = False
        while data := self.read(CHUNK):
            has_data = has_data or bool(data.strip(b"\0"))
        return has_data


def _member(info: tarfile.TarInfo) -> TarMember:
    kind: Kind = "other"
    if info.issparse():
        kind = "sparse file"
    elif info.isreg():
        kind = "file"
    elif info.issym() or info.islnk():
        kind = "link"
    name = info.name.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")
    return TarMember(name, kind, info.offset_data, info.size)


def _why_not_a_tar(start: bytes, error: Exception) -> str:
    if not start:
        return "empty (0 bytes)"
    for magic, name in COMPRESSIONS.items():
        if start.startswith(magic):
            return f"compressed with {name}; unpack it first, since photos are read in any order"
    return f"not a tar: {error}; it begins with {start[:8]!r}"


def open_shard(shard: str) -> BinaryIO:
    """Opens a local shard, or a remote one by its URL or command with `webdataset.gopen`.

    `http:` and `https:` need curl, `s3:` the command `aws`, `gs:` the command `gsutil`.

    Raises:
        OSError: the shard cannot be opened.
        ValueError: webdataset does not know this kind of URL.
        ImportError: the shard is remote and webdataset is not installed.
    """
    if not is_remote(shard):
        return open(shard, "rb", buffering=CHUNK)
    try:
        from webdataset import gopen
    except ImportError:
        raise ImportError(
            f"Remote shards such as {shard} require webdataset: pip install 'effcap[webdataset]'"
        ) from None
    if shard.startswith("s3:"):  # webdataset has no handler for s3:
        shard = f"pipe:aws s3 cp --quiet {shlex.quote(shard)} -"
    return gopen(shard)
