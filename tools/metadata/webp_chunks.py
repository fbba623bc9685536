"""EXIF and XMP chunks of WebP files."""

from __future__ import annotations

import struct
from typing import BinaryIO, NamedTuple

from effcap.tools.metadata.edits import Edit, Kind, MetadataError, file_size, read_range

NAMES: dict[Kind, bytes] = {"exif": b"EXIF", "xmp": b"XMP "}
FLAGS: dict[Kind, int] = {"exif": 0x08, "xmp": 0x04}
ALPHA = 0x10
HEADER = 12  # bytes before the first chunk


class Chunk(NamedTuple):
    """A chunk: its name, and its place in the file with name, size and padding."""

    name: bytes
    start: int
    size: int
    stop: int


class WebpFile:
    """The chunks of a WebP file; those of pixels are not read.

    Args:
        file: seekable file.

    Raises:
        MetadataError: the chunks are damaged.
    """

    def __init__(self, file: BinaryIO):
        self.file = file
        header = read_range(file, 0, HEADER)
        self.stop = 8 + struct.unpack("<I", header[4:8])[0]
        if self.stop > file_size(file):
            raise MetadataError("the file ends early")
        self.chunks: list[Chunk] = []
        start = HEADER
        while start < self.stop:
            name, size = struct.unpack("<4sI", read_range(file, start, start + 8))
            if start + 8 + size > self.stop:
                raise MetadataError(f"its WebP chunks are damaged at byte {start}")
            stop = start + 8 + size + size % 2
            self.chunks.append(Chunk(name, start, size, min(stop, self.stop)))
            start = stop
        if not self.chunks or self.chunks[0].name not in (b"VP8 ", b"VP8L", b"VP8X"):
            raise MetadataError("its WebP chunks are damaged")
        if self.chunks[0].name == b"VP8X" and self.chunks[0].size < 10:
            raise MetadataError("its WebP chunks are damaged")

    def _chunk(self, kind: Kind) -> Chunk | None:
        found = [chunk for chunk in self.chunks if chunk.name == NAMES[kind]]
        if len(found) > 1:
            raise MetadataError(f"it has {len(found)} {kind.upper()} chunks")
        return found[0] if found else None

    def get(self, kind: Kind) -> bytes | None:
        """Returns the EXIF block or the XMP packet, or None.

        Raises:
            MetadataError: there are several.
        """
        chunk = self._chunk(kind)
        if chunk is None:
            return None
        return read_range(self.file, chunk.start + 8, chunk.start + 8 + chunk.size)

    def set(self, kind: Kind, data: bytes) -> list[Edit]:
        """Returns the edits that replace or add the EXIF block or the XMP packet.

        Raises:
            MetadataError: the header of the pixels is damaged, or the file is too large.
        """
        chunk = self._chunk(kind)
        new = struct.pack("<4sI", NAMES[kind], len(data)) + data + b"\0" * (len(data) % 2)
        if chunk is not None:
            edits = [Edit(chunk.start, chunk.stop, new)]
        else:
            xmp = self._chunk("xmp")
            place = self.stop if xmp is None else xmp.start  # EXIF belongs before XMP
            missing = b"\0" * (place % 2)  # some files end without the padding
            edits = [Edit(place, place, missing + new)]
        first = self.chunks[0]
        if first.name == b"VP8X":
            (flags,) = read_range(self.file, first.start + 8, first.start + 9)
            edits.append(Edit(first.start + 8, first.start + 9, bytes([flags | FLAGS[kind]])))
        else:
            edits.append(Edit(HEADER, HEADER, self._extended_header(FLAGS[kind])))
        size = self.stop - 8 + sum(len(edit.data) - (edit.stop - edit.start) for edit in edits)
        if size > 2**32 - 10:
            raise MetadataError("the file is too large")
        return [*edits, Edit(4, 8, struct.pack("<I", size))]

    def _extended_header(self, flags: int) -> bytes:
        """Returns the chunk VP8X, with the size of the image from the header of its pixels."""
        first = self.chunks[0]
        head = read_range(self.file, first.start + 8, first.start + 8 + min(10, first.size))
        if first.name == b"VP8L":
            if len(head) < 5 or head[0] != 0x2F:
                raise MetadataError("the header of its pixels is damaged")
            (bits,) = struct.unpack("<I", head[1:5])
            width, height = bits & 0x3FFF, bits >> 14 & 0x3FFF  # each minus 1
            flags |= ALPHA if bits >> 28 & 1 else 0
        else:
            if len(head) < 10 or head[3:6] != b"\x9d\x01\x2a":
                raise MetadataError("the header of its pixels is damaged")
            width, height = (x & 0x3FFF for x in struct.unpack("<HH", head[6:10]))
            if not width or not height:
                raise MetadataError("the header of its pixels is damaged")
            width, height = width - 1, height - 1
        sizes = width.to_bytes(3, "little") + height.to_bytes(3, "little")
        return struct.pack("<4sIB3x", b"VP8X", 10, flags) + sizes
