"""EXIF and XMP chunks of PNG files."""

from __future__ import annotations

import struct
import zlib
from typing import BinaryIO, NamedTuple

from effcap.tools.metadata.edits import Edit, Kind, MetadataError, file_size, read_range

SIGNATURE = b"\x89PNG\r\n\x1a\n"
XMP_KEYWORD = b"XML:com.adobe.xmp\0"
RAW_PROFILE = b"Raw profile type "
# Metadata as ImageMagick wrote it before PNG had a place for it.
OLD_PROFILES: dict[Kind, tuple[bytes, ...]] = {"xmp": (b"xmp\0",), "exif": (b"exif\0", b"APP1\0")}
MAX_XMP = 2**26  # bytes of a compressed packet


class Chunk(NamedTuple):
    """A chunk: its type and its place in the file, with length and checksum."""

    kind: bytes
    start: int
    stop: int


class PngFile:
    """The chunks of a PNG file; those of pixels are not read.

    Args:
        file: seekable file.

    Raises:
        MetadataError: the chunks are damaged.
    """

    def __init__(self, file: BinaryIO):
        self.file = file
        self.chunks: list[Chunk] = []
        size, start = file_size(file), len(SIGNATURE)
        while not self.chunks or self.chunks[-1].kind != b"IEND":
            length, kind = struct.unpack(">I4s", read_range(file, start, start + 8))
            stop = start + 12 + length
            if not kind.isalpha() or (not self.chunks and kind != b"IHDR"):
                raise MetadataError(f"its PNG chunks are damaged at byte {start}")
            if stop > size:
                raise MetadataError("the file ends early")
            self.chunks.append(Chunk(kind, start, stop))
            start = stop

    def _data(self, chunk: Chunk) -> bytes:
        return read_range(self.file, chunk.start + 8, chunk.stop - 4)

    def _starts_with(self, chunk: Chunk, data: bytes) -> bool:
        start = chunk.start + 8
        stop = start + len(data)
        return stop <= chunk.stop - 4 and read_range(self.file, start, stop) == data

    def _chunk(self, kind: Kind) -> Chunk | None:
        if kind == "exif":
            found = [chunk for chunk in self.chunks if chunk.kind == b"eXIf"]
        else:
            texts = [chunk for chunk in self.chunks if chunk.kind == b"iTXt"]
            found = [chunk for chunk in texts if self._starts_with(chunk, XMP_KEYWORD)]
        if len(found) > 1:
            raise MetadataError(f"it has {len(found)} {kind.upper()} chunks")
        for chunk in self.chunks:
            if chunk.kind in (b"tEXt", b"zTXt", b"iTXt") and any(
                self._starts_with(chunk, RAW_PROFILE + name) for name in OLD_PROFILES[kind]
            ):
                raise MetadataError(f"it has {kind.upper()} in the old form of ImageMagick")
        return found[0] if found else None

    def get(self, kind: Kind) -> bytes | None:
        """Returns the EXIF block or the XMP packet, or None.

        Raises:
            MetadataError: there are several, or the chunk is damaged.
        """
        chunk = self._chunk(kind)
        if chunk is None:
            return None
        data = self._data(chunk)
        checksum = read_range(self.file, chunk.stop - 4, chunk.stop)
        if struct.pack(">I", zlib.crc32(chunk.kind + data)) != checksum:
            raise MetadataError(f"the checksum of its {kind.upper()} is wrong")
        return data if kind == "exif" else _read_text(data[len(XMP_KEYWORD) :])

    def set(self, kind: Kind, data: bytes) -> list[Edit]:
        """Returns the edits that replace or add the EXIF block or the XMP packet."""
        chunk = self._chunk(kind)
        name = b"eXIf" if kind == "exif" else b"iTXt"
        # Not compressed, without language and translated keyword.
        payload = data if kind == "exif" else XMP_KEYWORD + b"\0\0\0\0" + data
        checksum = zlib.crc32(name + payload)
        new = struct.pack(">I4s", len(payload), name) + payload + struct.pack(">I", checksum)
        if chunk is not None:
            return [Edit(chunk.start, chunk.stop, new)]
        place = self.chunks[0].stop  # behind IHDR, before palettes, frames and pixels
        return [Edit(place, place, new)]


def _read_text(data: bytes) -> bytes:
    """Returns the text of an iTXt chunk, given what follows its keyword."""
    fields = data[2:].split(b"\0", 2)
    if len(fields) < 3:
        raise MetadataError("its XMP is damaged")
    if not data[0]:
        return fields[2]
    decompressor = zlib.decompressobj()
    try:
        text = decompressor.decompress(fields[2], MAX_XMP)
    except zlib.error as error:
        raise MetadataError(f"its XMP is damaged: {error}") from None
    if not decompressor.eof:
        raise MetadataError("its compressed XMP is cut off or too large")
    return text
