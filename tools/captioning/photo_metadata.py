"""Writes captions into the metadata of photos: XMP beside them, XMP or EXIF in them."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from effcap.tools.captioning.caption_writer import CannotWrite, CaptionWriter
from effcap.tools.metadata.descriptions import read_description, write_description
from effcap.tools.metadata.edits import Kind, MetadataError
from effcap.tools.metadata.xmp_packet import PHOTOSHOP, Packet, new_packet
from effcap.utils.files import replace_contents

XMP_SUFFIX = ".xmp"
FIELDS: dict[Kind, str] = {"xmp": "dc:description of XMP", "exif": "ImageDescription of EXIF"}


@dataclass(frozen=True)
class XmpSidecars(CaptionWriter):
    """XMP files with captions as dc:description, as photo managers read and write them.

    The captions of dog.jpg are written to dog.jpg.xmp, or to dog.xmp if only that exists and is not
    that of another file, such as a raw photo. Everything else that an existing file contains stays.

    Args:
        existing, before, after: see `CaptionWriter`.

    Example:
        >>> caption_folder("holiday", writer=XmpSidecars())
    """

    def path(self, photo: Path) -> Path:
        """Returns the path of a photo's file."""
        path = photo.with_name(photo.name + XMP_SUFFIX)
        other = photo.with_suffix(XMP_SUFFIX)
        if path.exists() or not other.exists():
            return path
        try:
            owner = Packet(other.read_bytes()).attribute(PHOTOSHOP, "SidecarForExtension")
        except (MetadataError, OSError):
            return other  # which `read` reports
        return path if owner and owner.lower() != photo.suffix[1:].lower() else other

    @property
    def where(self) -> str:
        """Names what is written where."""
        return "XMP files written beside the photos"

    def read(self, photo: Path) -> str:
        """Returns the description of a photo's file, or "".

        Raises:
            CannotWrite: the file is damaged.
            OSError: the file cannot be read.
        """
        packet = self._packet(photo)
        try:
            return "" if packet is None else packet.description
        except MetadataError as error:
            raise CannotWrite(f"{self.path(photo)}: {error}") from None

    def replace(self, photo: Path, text: str) -> None:
        """Sets the description of a photo's file.

        Raises:
            CannotWrite: the file is damaged.
            OSError: the file cannot be written.
        """
        packet = self._packet(photo)
        try:
            new = new_packet(text) + b"\n" if packet is None else packet.describe(text)
        except MetadataError as error:
            raise CannotWrite(f"{self.path(photo)}: {error}") from None
        replace_contents(self.path(photo), [new])

    def _packet(self, photo: Path) -> Packet | None:
        path = self.path(photo)
        data = path.read_bytes() if path.exists() else b""
        if not data.strip(b"\0 \t\r\n"):
            return None
        try:
            return Packet(data)
        except MetadataError as error:
            raise CannotWrite(f"{path}: {error}") from None


@dataclass(frozen=True)
class EmbeddedCaptions(CaptionWriter):
    """Captions in JPEG, PNG, WebP and TIFF files, whose pixels and other metadata stay.

    Args:
        kind: "xmp" for dc:description of XMP, "exif" for ImageDescription of EXIF, in UTF-8.
        existing, before, after: see `CaptionWriter`.

    Raises:
        ValueError: there is no such `kind`, or no such `existing`.

    Example:
        >>> caption_folder("holiday", writer=EmbeddedCaptions("exif", existing="append"))
    """

    kind: Kind = "xmp"

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.kind not in FIELDS:
            raise ValueError(
                f"Expected kind out of {', '.join(FIELDS)}. Received: kind={self.kind!r}"
            )

    def path(self, photo: Path) -> Path:
        """Returns the path of the photo."""
        return photo

    @property
    def where(self) -> str:
        """Names what is written where."""
        return f"photos with captions written to {FIELDS[self.kind]}"

    def read(self, photo: Path) -> str:
        """Returns the description of a photo, or "".

        Raises:
            CannotWrite: the format has no place for one, or the photo is damaged, or text would be
                added to a description that is not UTF-8.
            OSError: the photo cannot be read.
        """
        try:
            description = read_description(photo, self.kind)
        except MetadataError as error:
            raise CannotWrite(str(error)) from None
        if not description.is_utf8 and self.existing in ("append", "prepend"):
            raise CannotWrite("text cannot be added to its description, which is not UTF-8")
        return description.text

    def replace(self, photo: Path, text: str) -> None:
        """Sets the description of a photo.

        Raises:
            CannotWrite: there is no room for it.
            OSError: the photo cannot be written.
        """
        try:
            write_description(photo, self.kind, text)
        except MetadataError as error:
            raise CannotWrite(str(error)) from None
