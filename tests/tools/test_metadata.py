"""Tests of descriptions in photos: Pillow reads them, and everything else is as it was."""

from __future__ import annotations

import io
import json
import shutil
import struct
import subprocess
import zlib

import pytest
from PIL import Image

from effcap.tools.metadata.descriptions import read_description, write_description
from effcap.tools.metadata.edits import MetadataError
from effcap.tools.metadata.xmp_packet import Packet, new_packet
from helpers.photo_metadata import (
    EXTENSIONS,
    HEAD,
    TAIL,
    compressed,
    encode,
    exif_description,
    frames,
    riff_chunks,
    scene,
    xmp_description,
    xmp_text,
)

TEXT = 'Zwei Hunde & <ein> "Bär"\n犬 🐕'
PHOTOS = (
    ("JPEG", "RGB", {}), ("JPEG", "L", {"progressive": True}), ("JPEG", "CMYK", {}),
    ("MPO", "RGB", {"save_all": True}), ("PNG", "RGBA", {}), ("PNG", "P", {}),
    ("PNG", "RGB", {"save_all": True}), ("WEBP", "RGB", {}), ("WEBP", "RGBA", {"lossless": True}),
    ("WEBP", "RGB", {"save_all": True}), ("TIFF", "RGB", {"compression": "tiff_lzw"}),
)  # fmt: skip


def write(tmp_path, form: str, data: bytes, kind: str, text: str = TEXT) -> bytes:
    """Writes a description and returns the new photo."""
    path = tmp_path / f"ein photo.{EXTENSIONS[form]}"
    path.write_bytes(data)
    write_description(path, kind, text)
    assert read_description(path, kind).text == text
    return path.read_bytes()


def pillow_description(data: bytes, kind: str) -> str | None:
    return exif_description(data) if kind == "exif" else xmp_description(xmp_text(data))


@pytest.mark.parametrize("rich", (True, False))
@pytest.mark.parametrize("kind", ("xmp", "exif"))
@pytest.mark.parametrize(("form", "mode", "options"), PHOTOS)
def test_pixels_and_other_metadata_stay(tmp_path, form, mode, options, kind, rich):
    old = encode(form, mode, rich, **options)
    new = write(tmp_path, form, old, kind)
    assert pillow_description(new, kind) == TEXT
    if form == "TIFF":
        assert new[8 : len(old)] == old[8:]
    elif form != "MPO":
        assert compressed(new) == compressed(old)
    assert frames(new) == frames(old)
    with Image.open(io.BytesIO(old)) as before, Image.open(io.BytesIO(new)) as after:
        entries = {tag: x for tag, x in after.getexif().items() if tag not in (0x010E, 700)}
        assert entries == dict(before.getexif())
        if form != "MPO":  # its block is written by Pillow without GPS
            assert after.getexif().get_ifd(0x8825) == before.getexif().get_ifd(0x8825)
        for name in ("icc_profile", "Title", "Comment", "duration", "loop"):
            assert after.info.get(name) == before.info.get(name)
    if rich and form != "TIFF":
        text = xmp_text(new)
        assert 'xmp:Rating="4"' in text and "<!-- kept -->" in text and "<rdf:li>dog<" in text
        assert (text == xmp_text(old)) == (kind == "exif")


@pytest.mark.parametrize("kind", ("xmp", "exif"))
@pytest.mark.parametrize(("form", "mode", "options"), PHOTOS)
def test_repeated_writes_leave_nothing_behind(tmp_path, form, mode, options, kind):
    first = write(tmp_path, form, encode(form, mode, **options), kind, "one")
    longer = write(tmp_path, form, first, kind, "longer text, " * 9 + "end")
    assert write(tmp_path, form, longer, kind, "one") == first


@pytest.mark.parametrize("order", "<>")
@pytest.mark.parametrize("form", ("JPEG", "PNG", "WEBP"))
def test_maker_notes_keep_their_offsets(tmp_path, form, order):
    # The note of a Canon has offsets from the start of the EXIF block.
    pack = lambda kinds, *values: struct.pack(order + kinds, *values)  # noqa: E731
    owner = b"the owner of the camera\0"
    note = pack("H HHII I", 1, 9, 2, len(owner), 400, 0)
    ifd0 = pack("H HHII HHII I", 2, 0x010F, 2, 6, 300, 0x8769, 4, 1, 100, 0)
    exif = pack("H HHII I", 1, 0x927C, 7, len(note), 200, 0)
    block = bytearray(424)
    block[:8] = (b"II*\0" if order == "<" else b"MM\0*") + pack("I", 8)
    for place, part in ((8, ifd0), (100, exif), (200, note), (300, b"Canon\0"), (400, owner)):
        block[place : place + len(part)] = part
    old = encode(form, rich=False, exif=b"Exif\0\0" + bytes(block))
    new = write(tmp_path, form, old, "exif")
    assert exif_description(new) == TEXT
    start = new.index(b"II*\0" if order == "<" else b"MM\0*")
    assert new[start + 8 : start + 424] == block[8:]
    if shutil.which("exiftool"):
        assert exiftool(tmp_path)[0]["OwnerName"] == "the owner of the camera"


def exiftool(folder) -> list[dict]:
    command = ["exiftool", "-j", "-charset", "utf8", str(folder)]
    return json.loads(subprocess.run(command, capture_output=True, check=True).stdout)


@pytest.mark.skipif(not shutil.which("exiftool"), reason="exiftool is not installed")
def test_exiftool_reads_the_descriptions(tmp_path):
    for number, (form, mode, options) in enumerate(PHOTOS):
        path = tmp_path / f"{number}.{EXTENSIONS[form]}"
        path.write_bytes(encode(form, mode, **options))
        write_description(path, "xmp", "Bär 犬")
        write_description(path, "exif", "Ein Bär")
    found = exiftool(tmp_path)
    assert len(found) == len(PHOTOS)
    for photo in found:
        assert (photo["Description"], photo["ImageDescription"]) == ("Bär 犬", "Ein Bär")
        assert "Error" not in photo and photo["Make"] == "Maker"


def test_the_index_of_further_images_follows_them(tmp_path):
    data = encode("MPO", rich=False, save_all=True)
    at = data.index(b"\xff\xe2")  # put XMP behind the index, as no program does
    index_size = 2 + struct.unpack(">H", data[at + 2 : at + 4])[0]
    xmp = b"http://ns.adobe.com/xap/1.0/\0" + new_packet("old")
    segment = b"\xff\xe1" + struct.pack(">H", len(xmp) + 2) + xmp
    odd = data[: at + index_size] + segment + data[at + index_size :]
    offset = data.index(b"II", at) if b"II" in data[at : at + 20] else data.index(b"MM", at)
    order = "<" if data[offset : offset + 1] == b"I" else ">"
    entry = struct.pack(order + "I", data.index(b"\xff\xd8", 2) - offset)
    moved = struct.pack(order + "I", odd.index(b"\xff\xd8", 2) - offset)
    odd = odd.replace(entry, moved, 1)
    assert frames(odd) == frames(data)
    new = write(tmp_path, "MPO", odd, "xmp", "much longer text, " * 20 + "end")
    assert frames(new) == frames(data)


def test_trailing_data_stay(tmp_path):
    for form in ("JPEG", "PNG", "WEBP"):
        old = encode(form) + b"motion photo"
        new = write(tmp_path, form, old, "xmp")
        assert new.endswith(b"motion photo") and compressed(new)[-30:] == compressed(old)[-30:]


def test_a_simple_webp_gets_a_header_with_its_size_and_transparency(tmp_path):
    for mode, options in (("RGB", {}), ("RGBA", {"lossless": True})):
        new = write(tmp_path, "WEBP", encode("WEBP", mode, False, **options), "exif")
        (name, header), *_ = riff_chunks(new)
        assert name == b"VP8X" and header[4:] == bytes((31, 0, 0, 23, 0, 0))
        assert bool(header[0] & 0x10) == (mode == "RGBA") and header[0] & 0x08


def png_with(*chunks: tuple[bytes, bytes]) -> bytes:
    new = b"".join(
        struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))
        for name, data in chunks
    )
    data = encode("PNG", rich=False)
    return data[:33] + new + data[33:]


def jpeg_with(*payloads: bytes) -> bytes:
    new = b"".join(b"\xff\xe1" + struct.pack(">H", len(x) + 2) + x for x in payloads)
    data = encode("JPEG", rich=False)
    return data[:2] + new + data[2:]


def jpeg_xmp(packet: bytes) -> bytes:
    return b"http://ns.adobe.com/xap/1.0/\0" + packet


EXTENDED = b"http://ns.adobe.com/xmp/extension/\0" + bytes(40)
BOMB = b'<!DOCTYPE x [<!ENTITY a "aaaa"><!ENTITY b "&a;&a;&a;">]><x>&b;</x>'
REFUSED = {
    "gif": ("gif", b"GIF89a" + bytes(20), "not into GIF; use XMP sidecars"),
    "empty": ("jpg", b"", "not what its suffix says"),
    "text": ("jpg", b"a text in a photo", "not what its suffix says"),
    "truncated JPEG": ("jpg", encode("JPEG")[:300], "ends early|damaged"),
    "truncated PNG": ("png", encode("PNG")[:-15], "ends early"),
    "truncated WebP": ("webp", encode("WEBP")[:-15], "ends early"),
    "truncated TIFF": ("tif", encode("TIFF")[:30], "damaged"),
    "BigTIFF": ("tif", b"II+\0" + bytes(40), "BigTIFF"),
    "raw": ("nef", b"II*\0" + bytes(40), "not into NEF"),
    "two XMP": ("jpg", jpeg_with(*[jpeg_xmp(new_packet("a"))] * 2), "2 XMP segments"),
    "odd XMP": ("jpg", jpeg_with(b"other\0" + new_packet("a")), "damaged header"),
    "bomb": ("jpg", jpeg_with(jpeg_xmp(BOMB)), "document type"),
    "no XML": ("jpg", jpeg_with(jpeg_xmp(b"<x>")), "XMP is damaged"),
    "no RDF": ("jpg", jpeg_with(jpeg_xmp(b"<x/>")), "no rdf:RDF"),
    "Latin-1": ("jpg", jpeg_with(jpeg_xmp(b"<x>\xfc</x>")), "not UTF-8"),
    "extended XMP": (
        "jpg",
        jpeg_with(jpeg_xmp(new_packet("")), EXTENDED + b"<dc:description>"),
        "extended XMP",
    ),
    "full": (
        "jpg",
        jpeg_with(jpeg_xmp(new_packet("").replace(b"<rdf:RDF", b" " * 64800 + b"<rdf:RDF"))),
        "exceed the 64 KB",
    ),
    "old PNG": ("png", png_with((b"tEXt", b"Raw profile type xmp\0x")), "old form of ImageMagick"),
    "two PNG": ("png", png_with(*[(b"iTXt", b"XML:com.adobe.xmp\0\0\0\0\0<x/>")] * 2), "2 XMP"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_cannot_be_written_safely_is_refused_untouched(tmp_path, name):
    suffix, data, message = REFUSED[name]
    path = tmp_path / f"photo.{suffix}"
    path.write_bytes(data)
    with pytest.raises(MetadataError, match=message):
        if not read_description(path, "xmp").text:
            write_description(path, "xmp", "word " * 200)
    assert path.read_bytes() == data and list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize(
    ("block", "message"),
    (
        (b"no TIFF", "header is damaged"),
        (b"MM\0*\0\0\0\x08\0\x01\x01\x0e\0\x02\0\0\0\x63\0\0\0\x20\0\0\0\0", "0x010E is damaged"),
        (b"MM\0*\0\0\0\x08\x01\0", "directory is damaged"),
        (b"II*\0\xff\0\0\0", "directory is damaged"),
    ),
)
def test_damaged_exif_is_refused_untouched(tmp_path, block, message):
    path = tmp_path / "photo.jpg"
    path.write_bytes(data := jpeg_with(b"Exif\0\0" + block))
    with pytest.raises(MetadataError, match=message):
        write_description(path, "exif", "a dog")
    assert path.read_bytes() == data


def test_compressed_xmp_of_png_is_read(tmp_path):
    packet = zlib.compress((HEAD + '<rdf:Description rdf:about=""/>' + TAIL).encode())
    data = png_with((b"iTXt", b"XML:com.adobe.xmp\0\1\0\0\0" + packet))
    assert xmp_description(xmp_text(write(tmp_path, "PNG", data, "xmp"))) == TEXT


DC = 'xmlns:dc="http://purl.org/dc/elements/1.1/"'
LI = '<rdf:li xml:lang="{}">{}</rdf:li>'.format
BODIES = {
    "nothing": ("", ""),
    "empty element": ('<rdf:Description rdf:about="a&gt;b" />', ""),
    "attribute": (f'<rdf:Description {DC} dc:description="o&amp;ld" dc:format="a>b"/>', "o&ld"),
    "attribute of an open element": (
        f"<rdf:Description {DC} dc:description='old'><dc:format>x</dc:format></rdf:Description>",
        "old",
    ),
    "plain text": (f"<rdf:Description {DC}><dc:description> old </dc:description>"
                   "</rdf:Description>", "old"),
    "empty description": (f"<rdf:Description {DC}><dc:description/></rdf:Description>", ""),
    "other prefixes": (
        '<r:Description xmlns:r="http://www.w3.org/1999/02/22-rdf-syntax-ns#" '
        'xmlns:q="http://purl.org/dc/elements/1.1/" xmlns:dc="urn:other"><q:description><r:Alt>'
        '<r:li xml:lang="x-default">old</r:li></r:Alt></q:description><dc:description>not it'
        "</dc:description></r:Description>", "old"),
    "languages": (f"<rdf:Description {DC}><dc:description><rdf:Alt>{LI('de', 'alt')}"
                  f"{LI('X-Default', 'old')}</rdf:Alt></dc:description></rdf:Description>", "old"),
    "another language": (f"<rdf:Description {DC}><dc:description><rdf:Alt>{LI('de', 'alt')}"
                         "</rdf:Alt></dc:description></rdf:Description>", "alt"),
    "a bag": (f"<rdf:Description {DC}><dc:description><rdf:Bag><rdf:li>old</rdf:li></rdf:Bag>"
              "</dc:description></rdf:Description>", "old"),
}  # fmt: skip


@pytest.mark.parametrize("encoding", ("utf-8", "utf-8-sig", "utf-16", "utf-16-be"))
@pytest.mark.parametrize("name", BODIES)
def test_every_form_of_a_packet_is_understood(name, encoding):
    body, old = BODIES[name]
    packet = (HEAD + body + TAIL).encode(encoding)
    assert Packet(packet).description == old
    new = Packet(packet).describe(TEXT)
    assert xmp_description(new.decode(encoding)) == TEXT and Packet(new).description == TEXT
    text = new.decode(encoding)
    assert text.startswith(HEAD) and text.endswith(TAIL)
    for kept in ("not it", 'rdf:about="a&gt;b"', "alt", 'dc:format="a>b"', "<dc:format>x<"):
        assert (kept in text) == (kept in body)
    assert Packet(new).describe(TEXT) == new


def test_two_descriptions_of_a_packet_are_refused():
    body = f"<rdf:Description {DC} dc:description='a'><dc:description>b</dc:description>"
    with pytest.raises(MetadataError, match="several descriptions"):
        Packet((HEAD + body + "</rdf:Description>" + TAIL).encode()).describe("c")


def test_padding_makes_room_in_a_full_segment(tmp_path):
    full = new_packet("old").replace(b"<?xpacket end", b" " * 65000 + b"<?xpacket end")
    new = write(tmp_path, "JPEG", jpeg_with(jpeg_xmp(full)), "xmp", "word " * 99 + "end")
    assert xmp_description(xmp_text(new)).startswith("word word")


def test_a_description_that_is_not_utf8_is_recognized(tmp_path):
    exif = Image.Exif()
    exif[0x010E] = b"B\xe4r"
    path = tmp_path / "a.jpg"
    scene().save(path, exif=exif)
    assert not read_description(path, "exif").is_utf8
