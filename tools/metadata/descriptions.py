"""Reads and sets the description of a photo, in its XMP or its EXIF.

Pixels are never decoded, and every byte that is not part of the description or of the sizes and
places around it stays as it is.
"""

from __future__ import annotations

import io
import os
from pathlib import Path
from typing import BinaryIO, NamedTuple

from effcap.tools.metadata import exif_block
from effcap.tools.metadata.edits import Edit, Kind, MetadataError, edited, read_range
from effcap.tools.metadata.exif_block import BYTE, Directory, is_utf8
from effcap.tools.metadata.jpeg_segments import JpegFile
from effcap.tools.metadata.png_chunks import SIGNATURE, PngFile
from effcap.tools.metadata.webp_chunks import WebpFile
from effcap.tools.metadata.xmp_packet import Packet, new_packet, without_padding
from effcap.utils.files import replace_contents

TIFF_SUFFIXES = (".tif", ".tiff")
SUFFIXES = (".jpg", ".jpeg", ".png", ".webp", *TIFF_SUFFIXES)
EXIF_PREFIX = b"Exif\0\0"  # belongs to JPEG, and some programs write it elsewhere too
XMP_TAG = 700


class TiffFile:
    """A TIFF file, whose first directory has the EXIF entries and the XMP packet.

    Args:
        file: seekable file.
    """

    def __init__(self, file: BinaryIO):
        self.directory = Directory(file)

    def get(self, kind: Kind) -> bytes | None:
        """Returns the XMP packet, or None."""
        return self.directory.read(XMP_TAG)

    def set(self, kind: Kind, data: bytes) -> list[Edit]:
        """Returns the edits that replace or add the XMP packet."""
        return self.directory.write(XMP_TAG, BYTE, data)


Container = JpegFile | PngFile | WebpFile | TiffFile


class Description(NamedTuple):
    """The description of a photo: its text, and whether it is in UTF-8."""

    text: str
    is_utf8: bool = True


def read_description(path: Path, kind: Kind) -> Description:
    """Returns the description of a photo, with empty text if it has none.

    Args:
        path: photo.
        kind: "xmp" for dc:description, "exif" for ImageDescription.

    Raises:
        MetadataError: the format is not supported, or the photo or its metadata are damaged.
        OSError: the file cannot be read.
    """
    with path.open("rb") as file:
        return _read(file, path, kind)


def write_description(path: Path, kind: Kind, text: str) -> None:
    """Sets the description of a photo; the photo is replaced once the new one is on disk.

    Args:
        path: photo.
        kind: "xmp" for dc:description, "exif" for ImageDescription.
        text: text without control characters but line feeds.

    Raises:
        MetadataError: as `read_description`, or there is no room for the text.
        OSError: the file cannot be written.
    """
    with path.open("rb") as file:
        edits = _edits(file, path, kind, text)
        if os.fstat(file.fileno()).st_size < 2**24:  # a copy of large ones is not kept in memory
            new = io.BytesIO(b"".join(edited(file, edits)))
            if _read(new, path, kind).text.strip() != text.strip():
                raise MetadataError("its metadata are damaged, the description was not found again")
        replace_contents(path, edited(file, edits))


def _open_container(file: BinaryIO, path: Path) -> Container:
    head = read_range(file, 0, min(12, exif_block.file_size(file)))
    if head.startswith(b"\xff\xd8\xff"):
        return JpegFile(file)
    if head.startswith(SIGNATURE):
        return PngFile(file)
    if head[:4] == b"RIFF" and head[8:] == b"WEBP":
        return WebpFile(file)
    if head[:2] in (b"II", b"MM") and path.suffix.lower() in TIFF_SUFFIXES:
        return TiffFile(file)
    if path.suffix.lower() in SUFFIXES:
        raise MetadataError("the file is not what its suffix says, or damaged at its start")
    name = path.suffix.lstrip(".").upper() or "files without suffix"
    raise MetadataError(
        f"descriptions can be written into JPEG, PNG, WebP and TIFF, not into {name}; use XMP "
        "sidecars"
    )


def _read(file: BinaryIO, path: Path, kind: Kind) -> Description:
    container = _open_container(file, path)
    if kind == "exif":
        if isinstance(container, TiffFile):
            text = exif_block.read_description(file)
        else:
            _, block = _exif_block(container)
            text = exif_block.read_description(io.BytesIO(block)) if block else b""
        return Description(text.decode("utf-8", "replace"), is_utf8(text))
    packet = container.get("xmp")
    if isinstance(container, JpegFile) and b"description" in container.extended_xmp():
        raise MetadataError("its description may be in extended XMP, which is only kept")
    return Description(Packet(packet).description if packet else "")


def _exif_block(container: Container) -> tuple[bytes, bytes | None]:
    """Returns what stands in front of an EXIF block, and the block or None."""
    block = container.get("exif")
    if block is not None and block.startswith(EXIF_PREFIX):
        return EXIF_PREFIX, block[len(EXIF_PREFIX) :]
    return b"", block


def _edits(file: BinaryIO, path: Path, kind: Kind, text: str) -> list[Edit]:
    """Returns the edits of a photo that set its description."""
    container = _open_container(file, path)
    if kind == "exif":
        if isinstance(container, TiffFile):
            return exif_block.write_description(file, text)
        prefix, block = _exif_block(container)
        return container.set("exif", prefix + exif_block.describe_block(block, text))
    packet = container.get("xmp")
    new = Packet(packet).describe(text) if packet else new_packet(text)
    if isinstance(container, JpegFile) and len(new) > container.max_size("xmp"):
        new = without_padding(new)
    return container.set("xmp", new)
