"""The members of a tar, from a file or a stream, and how the tar ends.

Headers are read by the standard library, so that GNU's and PAX's long names are whole and offsets
are right behind them. The tar is read once, from front to back; what is cut off is told.
"""

from __future__ import annotations

import shlex
import tarfile
from collections.abc import Callable, Iterator
from typing import BinaryIO, Literal, NamedTuple

from effcap.images import LARGEST_FILE
from effcap.trainers.data.shards.shard_index import is_remote

BLOCK = 512  # bytes of a header, and what contents are filled up to a multiple of
CHUNK = 2**20  # bytes
COMPRESSIONS = {
    b"\x1f\x8b": "gzip", b"BZh": "bzip2", b"\xfd7zXZ\0": "xz", b"\x28\xb5\x2f\xfd": "zstd",
    b"PK\x03\x04": "zip",
}  # fmt: skip
Kind = Literal["file", "link", "sparse file", "other"]


class NotATar(ValueError):
    """A shard that is empty, compressed, or no tar at all."""


class Member(NamedTuple):
    """A member of a tar: its name, what it is, where its bytes begin, and how many they are."""

    name: str
    kind: Kind
    offset: int
    size: int


class TarWalk:
    """Gives a tar's members in their order; `read` reads the one that was given last.

    Args:
        file: opened in binary mode; need not be able to seek.
        advance: called with the number of bytes done, as they are done.

    Attributes:
        note: at the end, what is wrong with the tar, or an empty text.

    Raises:
        NotATar: when it is empty, compressed or no tar.
    """

    def __init__(self, file: BinaryIO, advance: Callable[[int], None] | None = None):
        self.note = ""
        self._source = _Source(file, advance or (lambda count: None))
        self._member: Member | None = None
        try:
            self._tar = tarfile.TarFile(
                fileobj=self._source, mode="r", encoding="utf-8", errors="surrogateescape"
            )
            # Without a first member, Python 3.10 cannot be asked for the next.
            self._next = self._tar.next() if self._tar.firstmember else None
        except _DAMAGED as error:
            raise NotATar(_why_no_tar(self._source.last, error)) from None

    @property
    def size(self) -> int:
        """Bytes passed so far."""
        return self._source.position

    def __iter__(self) -> Iterator[Member]:
        while self._next is not None:
            self._member = _member(self._next)
            yield self._member
            self._tar.members.clear()  # it would keep them all
            try:
                self._next = self._tar.next()
            except _DAMAGED:
                self._next = None
                self.note = self._cut()
        self.note = self.note or self._ending()
        self._source.drain()

    def read(self) -> bytes | None:
        """The bytes of the member given last; None where the tar ends before they do."""
        assert self._member is not None
        self._source.seek(self._member.offset)
        data = self._source.read(self._member.size)
        return data if len(data) == self._member.size else None

    def _cut(self) -> str:
        last = self._member.name if self._member else ""
        return f"it is cut off after {self.size} bytes, in or behind {last!r}"

    def _ending(self) -> str:
        """What is wrong behind the last member; judged by the header read last."""
        last = self._source.last
        if not last:
            return f"it ends without an end mark after {self.size} bytes, and may be cut off"
        if len(last) < BLOCK:
            return self._cut()
        if last.strip(b"\0"):
            return f"its header at byte {self.size - BLOCK} is damaged, what follows is not read"
        if self._source.drain():
            return f"more data follow behind its end mark at byte {self._tar.offset}, not read"
        return ""


_DAMAGED = (tarfile.TarError, ValueError, OverflowError, EOFError)


class _Source:
    """A file read from front to back, as `tarfile` and `TarWalk` share it."""

    def __init__(self, file: BinaryIO, advance: Callable[[int], None]):
        self.file, self.advance = file, advance
        self.position = 0
        self.last = b""

    def tell(self) -> int:
        return self.position

    def read(self, size: int) -> bytes:
        """That many bytes, fewer only at the end of the file."""
        if size > LARGEST_FILE:
            raise tarfile.ReadError(f"{size} bytes in one piece")
        parts, missing = [], size
        while missing > 0:
            part = self.file.read(min(missing, CHUNK))
            if not part:
                break
            parts.append(part)
            missing -= len(part)
        self.last = b"".join(parts)
        self.position += len(self.last)
        self.advance(len(self.last))
        return self.last

    def seek(self, position: int) -> None:
        """Passes over what lies before `position`; stays at the end of the file before it."""
        if position < self.position:
            raise tarfile.ReadError("a header points backwards")
        while self.position < position:
            if not self.read(min(position - self.position, CHUNK)):
                break

    def drain(self) -> bool:
        """Reads to the end; whether anything but zeros came."""
        found = False
        while data := self.read(CHUNK):
            found = found or bool(data.strip(b"\0"))
        return found


def _member(info: tarfile.TarInfo) -> Member:
    kind: Kind = "other"
    if info.issparse():
        kind = "sparse file"
    elif info.isreg():
        kind = "file"
    elif info.issym() or info.islnk():
        kind = "link"
    name = info.name.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")
    return Member(name, kind, info.offset_data, info.size)


def _why_no_tar(start: bytes, error: Exception) -> str:
    if not start:
        return "it is empty (0 bytes)"
    for magic, name in COMPRESSIONS.items():
        if start.startswith(magic):
            return f"it is compressed with {name}; unpack it first, photos are read in any order"
    return f"it is no tar: {error}; it begins with {start[:8]!r}"


def open_shard(shard: str) -> BinaryIO:
    """A shard opened for reading: a local file, or what `webdataset` opens by URL or command.

    `http:` and `https:` need curl, `s3:` Amazon's `aws`, `gs:` Google's `gsutil`.

    Raises:
        OSError: when it cannot be opened.
        ValueError: for a remote shard without webdataset, or with an address it does not know.
    """
    if not is_remote(shard):
        return open(shard, "rb", buffering=CHUNK)
    try:
        from webdataset import gopen
    except ImportError:
        raise ValueError(
            "Expected the package webdataset for remote shards (pip install 'effcap[webdataset]'). "
            f"Received: {shard} without it"
        ) from None
    if shard.startswith("s3:"):  # which webdataset leaves to Amazon's own command
        shard = f"pipe:aws s3 cp --quiet {shlex.quote(shard)} -"
    return gopen(shard)
