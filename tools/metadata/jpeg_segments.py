"""EXIF and XMP segments of JPEG files."""

from __future__ import annotations

import io
import struct
from typing import BinaryIO, NamedTuple

from effcap.tools.metadata.edits import (
    Edit,
    Kind,
    MetadataError,
    edited,
    file_size,
    read_range,
)
from effcap.tools.metadata.exif_block import Directory

SIGNATURES: dict[Kind, bytes] = {"exif": b"Exif\0\0", "xmp": b"http://ns.adobe.com/xap/1.0/\0"}
XMP_MARKS = (b"adobe:ns:meta/", b"22-rdf-syntax-ns#")
EXTENDED_XMP = b"http://ns.adobe.com/xmp/extension/\0"
MPF = b"MPF\0"  # index of further images behind the first one
MPF_IMAGES = 0xB002
MAX_LENGTH = 0xFFFF - 2  # bytes in a segment
START_OF_IMAGE, END_OF_IMAGE, START_OF_SCAN, APP0, APP1, APP2 = 0xD8, 0xD9, 0xDA, 0xE0, 0xE1, 0xE2


class Segment(NamedTuple):
    """A segment before the compressed data: its marker and its place in the file."""

    marker: int
    start: int
    payload: int
    stop: int


class JpegFile:
    """The segments of a JPEG file before its compressed data, which is not read.

    Args:
        file: seekable file.

    Raises:
        MetadataError: the segments are damaged.
    """

    def __init__(self, file: BinaryIO):
        self.file = file
        self.segments = list(_read_segments(file))

    def _find(self, marker: int, signature: bytes) -> list[Segment]:
        return [
            segment
            for segment in self.segments
            if segment.marker == marker
            and segment.stop - segment.payload >= len(signature)
            and read_range(self.file, segment.payload, segment.payload + len(signature))
            == signature
        ]

    def _segment(self, kind: Kind) -> Segment | None:
        found = self._find(APP1, SIGNATURES[kind])
        if len(found) > 1:
            raise MetadataError(f"it has {len(found)} {kind.upper()} segments")
        if kind == "xmp" and not found and self._has_odd_xmp():
            raise MetadataError("its XMP segment has a damaged header")
        return found[0] if found else None

    def _has_odd_xmp(self) -> bool:
        """Returns whether there is XMP behind another header, which some programs read."""
        known = [*self._find(APP1, SIGNATURES["exif"]), *self._find(APP1, EXTENDED_XMP)]
        return any(
            mark in read_range(self.file, segment.payload, segment.stop)
            for segment in self.segments
            if segment.marker == APP1 and segment not in known
            for mark in XMP_MARKS
        )

    def get(self, kind: Kind) -> bytes | None:
        """Returns the EXIF block or the XMP packet, or None.

        Raises:
            MetadataError: there are several.
        """
        segment = self._segment(kind)
        if segment is None:
            return None
        return read_range(self.file, segment.payload + len(SIGNATURES[kind]), segment.stop)

    def extended_xmp(self) -> bytes:
        """Returns the contents of extended XMP, which other segments than the packet hold."""
        segments = self._find(APP1, EXTENDED_XMP)
        header = len(EXTENDED_XMP) + 40  # identifier, size and offset
        return b"".join(read_range(self.file, x.payload + header, x.stop) for x in segments)

    def max_size(self, kind: Kind) -> int:
        """Returns how many bytes an EXIF block or an XMP packet can have."""
        return MAX_LENGTH - len(SIGNATURES[kind])

    def set(self, kind: Kind, data: bytes) -> list[Edit]:
        """Returns the edits that replace or add the EXIF block or the XMP packet.

        Raises:
            MetadataError: it does not fit into a segment, or the index of images is damaged.
        """
        if len(data) > self.max_size(kind):
            raise MetadataError(
                f"its {kind.upper()} would exceed the 64 KB of a JPEG segment: {len(data)} bytes"
            )
        payload = SIGNATURES[kind] + data
        new = struct.pack(">BBH", 0xFF, APP1, len(payload) + 2) + payload
        segment = self._segment(kind)
        start = self._place(kind) if segment is None else segment.start
        edit = Edit(start, start if segment is None else segment.stop, new)
        return [edit, *self._move_images(edit)]

    def _place(self, kind: Kind) -> int:
        """Returns where a new segment belongs: EXIF behind JFIF, XMP behind EXIF."""
        exif = self._segment("exif")
        if kind == "xmp" and exif is not None:
            return exif.stop
        place = 2
        for segment in self.segments:
            if segment.marker != APP0:
                break
            place = segment.stop
        return place

    def _move_images(self, edit: Edit) -> list[Edit]:
        """Returns the edits of the index of further images, which lie behind the first one.

        Their offsets count from the index, and the first image has a size.
        """
        growth = len(edit.data) - (edit.stop - edit.start)
        edits = []
        for segment in self._find(APP2, MPF):
            start = segment.payload + len(MPF)
            block = io.BytesIO(read_range(self.file, start, segment.stop))
            directory = Directory(block)
            images = directory.find(MPF_IMAGES)
            if images is None:
                continue
            data = bytearray(read_range(block, images.start, images.stop))
            integer = struct.Struct(directory.order + "I")
            for position in range(0, len(data) - 15, 16):
                size, offset = (integer.unpack_from(data, position + i)[0] for i in (4, 8))
                if not offset and size:
                    integer.pack_into(data, position + 4, size + growth)
                elif offset and segment.start < edit.start:
                    integer.pack_into(data, position + 8, offset + growth)
            changed = edited(block, [Edit(images.start, images.stop, bytes(data))])
            edits.append(Edit(start, segment.stop, b"".join(changed)))
        return edits


def _read_segments(file: BinaryIO) -> list[Segment]:
    segments: list[Segment] = []
    size, position = file_size(file), 2
    while True:
        start = position
        if read_range(file, position, position + 1) != b"\xff":
            raise MetadataError(f"its JPEG segments are damaged at byte {position}")
        while (marker := read_range(file, position, position + 1)[0]) == 0xFF:  # fill bytes
            position += 1
        if marker == START_OF_SCAN:
            return segments
        if marker in (0, 1, END_OF_IMAGE) or 0xD0 <= marker <= START_OF_IMAGE:
            raise MetadataError(f"its JPEG segments are damaged at byte {position}")
        (length,) = struct.unpack(">H", read_range(file, position + 1, position + 3))
        stop = position + 1 + length
        if length < 2 or stop > size:
            raise MetadataError(f"its JPEG segments are damaged at byte {position}")
        segments.append(Segment(marker, start, position + 3, stop))
        position = stop
