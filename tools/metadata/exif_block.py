"""Edits single entries of TIFF structures: EXIF blocks, MPF indexes and TIFF files.

Nothing but the first directory moves: values of makers' notes, thumbnails and pixels are found at
offsets from the start of the structure, so that new values are appended at its end.
"""

from __future__ import annotations

import io
import struct
from typing import BinaryIO, NamedTuple

from effcap.tools.metadata.edits import Edit, MetadataError, edited, file_size, read_range

IMAGE_DESCRIPTION = 0x010E
BYTE, ASCII = 1, 2
# Bytes of a value by its type.
TYPE_SIZES = {
    1: 1, 2: 1, 3: 2, 4: 4, 5: 8, 6: 1, 7: 1, 8: 2, 9: 4, 10: 8, 11: 4, 12: 8, 13: 4, 129: 1,
}  # fmt: skip
EMPTY = b"MM\0*\0\0\0\x08\0\0\0\0\0\0"  # big-endian, with a directory without entries
LARGEST = 2**32 - 1  # bytes, for offsets of 32 bits


class Entry(NamedTuple):
    """An entry of a directory, with the place of its value."""

    tag: int
    kind: int
    num_values: int
    start: int
    stop: int
    raw: bytes


class Directory:
    """The first directory of a TIFF structure.

    Args:
        file: the structure, from its header on.

    Raises:
        MetadataError: the header or the directory is damaged.
    """

    def __init__(self, file: BinaryIO):
        self.file, self.size = file, file_size(file)
        header = read_range(file, 0, min(8, self.size))
        if header[:4] in (b"II+\0", b"MM\0+"):
            raise MetadataError("BigTIFF is not supported")
        if len(header) < 8 or header[:4] not in (b"II*\0", b"MM\0*"):
            raise MetadataError("its EXIF or TIFF header is damaged")
        self.order = "<" if header[:2] == b"II" else ">"
        (self.start,) = self._unpack("I", header[4:])
        if not 8 <= self.start <= self.size - 2:
            raise MetadataError("its EXIF or TIFF directory is damaged")
        (count,) = self._unpack("H", read_range(file, self.start, self.start + 2))
        self.stop = self.start + 2 + 12 * count
        if self.stop > self.size:
            raise MetadataError("its EXIF or TIFF directory is damaged")
        raw = read_range(file, self.start + 2, self.stop)
        self.entries = [self._entry(i, raw[12 * i : 12 * i + 12]) for i in range(count)]
        for entry in self.entries:  # readers stop at the first damaged one
            if entry.kind not in TYPE_SIZES or entry.stop > self.size:
                raise MetadataError(f"its EXIF or TIFF tag 0x{entry.tag:04X} is damaged")

    def _unpack(self, kinds: str, data: bytes) -> tuple[int, ...]:
        return struct.unpack(self.order + kinds, data)

    def _pack(self, kinds: str, *values: int) -> bytes:
        return struct.pack(self.order + kinds, *values)

    def _entry(self, index: int, raw: bytes) -> Entry:
        tag, kind, count, start = self._unpack("HHII", raw)
        size = TYPE_SIZES.get(kind, 0) * count
        if size <= 4:
            start = self.start + 2 + 12 * index + 8
        return Entry(tag, kind, count, start, start + size, raw)

    def find(self, tag: int) -> Entry | None:
        """Returns the entry of a tag, or None.

        Raises:
            MetadataError: the tag occurs twice.
        """
        found = [entry for entry in self.entries if entry.tag == tag]
        if len(found) > 1:
            raise MetadataError(f"its EXIF has the tag 0x{tag:04X} twice")
        return found[0] if found else None

    def read(self, tag: int) -> bytes | None:
        """Returns the bytes of the value of a tag, or None without it."""
        entry = self.find(tag)
        return None if entry is None else read_range(self.file, entry.start, entry.stop)

    def write(self, tag: int, kind: int, value: bytes) -> list[Edit]:
        """Returns the edits that give a tag a value of single bytes.

        Raises:
            MetadataError: as `find`, or offsets do not suffice.
        """
        old = self.find(tag)
        # A text that an earlier call appended is replaced rather than left behind.
        end = old.start if old is not None and self._is_last_text(old) else self.size
        padding = b"\0" * (end % 2)
        if old is not None and len(value) <= 4:
            entry = self._pack("HHI", tag, kind, len(value)) + value.ljust(4, b"\0")
            return [*self._at(old, entry), Edit(end, self.size, b"")]
        moved = b""  # the directory with one more entry, at the end
        if old is None:
            moved = b"\0" * (2 + 12 * len(self.entries) + 12 + 4)
        place = end + len(padding) + len(moved)
        if place + len(value) > LARGEST:
            raise MetadataError("the file is larger than 4 GiB, which offsets do not reach")
        inline = len(value) <= 4
        field = value.ljust(4, b"\0") if inline else self._pack("I", place)
        entry = self._pack("HHI", tag, kind, len(value)) + field
        tail = b"" if inline else value + b"\0" * (len(value) % 2)
        if old is not None:
            return [*self._at(old, entry), Edit(end, self.size, padding + tail)]
        before = [entry.raw for entry in self.entries if entry.tag < tag]
        after = [entry.raw for entry in self.entries if entry.tag >= tag]
        following = bytes(4)  # some files end without the offset of the next directory
        if self.stop + 4 <= self.size:
            following = read_range(self.file, self.stop, self.stop + 4)
        moved = self._pack("H", len(self.entries) + 1) + b"".join([*before, entry, *after])
        header = Edit(4, 8, self._pack("I", end + len(padding)))
        return [header, Edit(end, self.size, padding + moved + following + tail)]

    def _at(self, entry: Entry, raw: bytes) -> list[Edit]:
        start = self.start + 2 + 12 * self.entries.index(entry)
        return [Edit(start, start + 12, raw)]

    def _is_last_text(self, entry: Entry) -> bool:
        """Returns whether a value is the end of the structure, and nothing but text."""
        if (
            entry.kind not in (ASCII, BYTE)
            or entry.num_values <= 4
            or entry.start % 2
            or entry.start < self.stop
        ):
            return False
        text = read_range(self.file, entry.start, self.size)
        ends = entry.stop + entry.num_values % 2 == self.size
        return ends and is_utf8(text) and b"\0" not in text.rstrip(b"\0")


def is_utf8(data: bytes) -> bool:
    """Returns whether bytes are text in UTF-8."""
    try:
        data.decode("utf-8")
    except UnicodeDecodeError:
        return False
    return True


def read_description(file: BinaryIO) -> bytes:
    """Returns the bytes of ImageDescription up to the first NUL, without spaces around them.

    Raises:
        MetadataError: the structure is damaged.
    """
    value = Directory(file).read(IMAGE_DESCRIPTION) or b""
    return value.partition(b"\0")[0].strip()


def write_description(file: BinaryIO, text: str) -> list[Edit]:
    """Returns the edits that set ImageDescription, in UTF-8.

    Raises:
        MetadataError: the structure is damaged.
    """
    return Directory(file).write(IMAGE_DESCRIPTION, ASCII, text.encode("utf-8") + b"\0")


def describe_block(block: bytes | None, text: str) -> bytes:
    """Returns an EXIF block with another ImageDescription, or a new block.

    Raises:
        MetadataError: the block is damaged.
    """
    file = io.BytesIO(block or EMPTY)
    return b"".join(edited(file, write_description(file, text)))
