"""Photos with metadata, and readers of these that are not EffCap's."""

from __future__ import annotations

import io
import struct
import xml.etree.ElementTree as ElementTree
from typing import Any

import numpy as np
from PIL import Image, PngImagePlugin

RDF = "http://www.w3.org/1999/02/22-rdf-syntax-ns#"
HEAD = (
    '<?xpacket begin="" id="W5M0MpCehiHzreSzNTczkc9d"?><x:xmpmeta xmlns:x="adobe:ns:meta/">'
    f'<rdf:RDF xmlns:rdf="{RDF}">'
)
TAIL = '</rdf:RDF></x:xmpmeta>\n     \n<?xpacket end="w"?>'
RATED = (
    '<rdf:Description rdf:about="" xmlns:xmp="http://ns.adobe.com/xap/1.0/" xmp:Rating="4"/>'
    '<!-- kept --><rdf:Description rdf:about="" xmlns:dc="http://purl.org/dc/elements/1.1/">'
    "<dc:subject><rdf:Bag><rdf:li>dog</rdf:li></rdf:Bag></dc:subject></rdf:Description>"
)
EXTENSIONS = {"JPEG": "jpg", "MPO": "jpg", "PNG": "png", "WEBP": "webp", "TIFF": "tif"}


def scene(mode: str = "RGB") -> Image.Image:
    """Returns a small photo of noise."""
    pixels = np.random.default_rng(0).integers(0, 256, (24, 32, 3), np.uint8)  # (h, w, 3)
    image = Image.fromarray(pixels).convert(mode)
    if mode == "RGBA":
        image.putalpha(Image.fromarray(pixels[:, :, 0]))  # (h, w)
    return image


def encode(form: str, mode: str = "RGB", rich: bool = True, **options: Any) -> bytes:
    """Returns an encoded photo, with orientation, maker, GPS, ICC profile and XMP if it is rich."""
    if rich:
        exif = Image.Exif()
        exif[0x0112], exif[0x010F] = 6, "Maker"
        exif.get_ifd(0x8825)[1] = "N"
        options |= {"exif": exif, "icc_profile": b"profile " * 20}
        xmp = HEAD + RATED + TAIL
        if form == "PNG":
            info = PngImagePlugin.PngInfo()
            info.add_itxt("Title", "Ein Bär")
            info.add_itxt("XML:com.adobe.xmp", xmp)
            info.add_text("Comment", "kept")
            options["pnginfo"] = info
        elif form in ("JPEG", "MPO", "WEBP"):
            options["xmp"] = xmp.encode()
    if options.get("save_all"):
        options["append_images"] = [scene(mode).rotate(180)]
    file = io.BytesIO()
    scene(mode).save(file, form, **options)
    return file.getvalue()


def compressed(data: bytes) -> bytes:
    """Returns the bytes of a photo that its pixels are decoded from."""
    if data[:2] == b"\xff\xd8":
        return data[data.index(b"\xff\xda") :]
    if data[:4] == b"RIFF":
        return b"".join(chunk for name, chunk in riff_chunks(data) if name in (b"VP8 ", b"VP8L"))
    if data[:4] == b"\x89PNG":
        return data[data.index(b"IDAT") : data.rindex(b"IEND")]
    return data[8:]  # TIFF: everything but the offset of the directory


def riff_chunks(data: bytes) -> list[tuple[bytes, bytes]]:
    """Returns the names and contents of the chunks of a WebP file."""
    chunks, position = [], 12
    while position < len(data):
        name, size = struct.unpack_from("<4sI", data, position)
        chunks.append((name, data[position + 8 : position + 8 + size]))
        position += 8 + size + size % 2
    return chunks


def frames(data: bytes) -> list[tuple[str, bytes]]:
    """Returns the mode and pixels of each image of a file, as Pillow decodes them."""
    with Image.open(io.BytesIO(data)) as image:
        decoded = []
        for index in range(getattr(image, "n_frames", 1)):
            image.seek(index)
            decoded.append((image.mode, image.tobytes()))
    return decoded


def exif_description(data: bytes) -> str | None:
    """Returns ImageDescription as Pillow reads it: bytes in Latin-1."""
    with Image.open(io.BytesIO(data)) as image:
        text = image.getexif().get(0x010E)
    return None if text is None else text.encode("latin-1").decode("utf-8")


def xmp_text(data: bytes) -> str:
    """Returns the XMP packet of a photo as Pillow finds it."""
    with Image.open(io.BytesIO(data)) as image:
        packet = image.info.get("xmp") or image.info.get("XML:com.adobe.xmp")
        if packet is None and image.format == "TIFF":
            packet = image.tag_v2[700]
    return packet if isinstance(packet, str) else bytes(packet).decode("utf-8")


def xmp_description(packet: str | bytes) -> str | None:
    """Returns the default description of a packet, parsed by another XML parser."""
    root = ElementTree.fromstring(packet.strip())
    items = root.findall(
        f".//{{{RDF}}}Description/{{http://purl.org/dc/elements/1.1/}}description/"
        f"{{{RDF}}}Alt/{{{RDF}}}li[@{{http://www.w3.org/XML/1998/namespace}}lang='x-default']"
    )
    assert len(items) <= 1
    return items[0].text if items else None
