"""Tests of the detection of truncated JPEGs."""

from __future__ import annotations

import io

import numpy as np
import pytest
from PIL import Image

from effcap.images import load_photo
from effcap.trainers.data.truncated_jpeg import ends_early

NOISE = np.random.default_rng(0).integers(0, 256, (60, 80, 3), np.uint8)


def write(path, image, cut=None, **options):
    """Writes a JPEG and decodes it.

    Args:
        path: the file.
        image: the image.
        cut: fraction of the data kept before an end marker; None for all.
        **options: options of Pillow's JPEG encoder.
    """
    file = io.BytesIO()
    image.save(file, "JPEG", **options)
    data = file.getvalue()
    if cut is not None:
        start = data.rfind(b"\xff\xda") + 20
        data = data[: int(start + cut * (len(data) - 2 - start))] + b"\xff\xd9"
    path.write_bytes(data)
    return path, load_photo(path, (112, 112))


def photo() -> Image.Image:
    """Returns a photo without flat parts."""
    return Image.fromarray(NOISE).resize((400, 300))


@pytest.mark.parametrize("cut", (0.0, 0.2, 0.5, 0.9))
@pytest.mark.parametrize("orientation", (1, 3, 6, 8))
@pytest.mark.parametrize("mode", ("RGB", "L", "CMYK"))
def test_a_truncated_photo_with_an_end_marker_is_detected(tmp_path, cut, orientation, mode):
    exif = Image.Exif()
    exif[0x0112] = orientation
    path, pixels = write(tmp_path / "a.jpg", photo().convert(mode), cut, exif=exif, quality=90)
    assert ends_early(path, pixels)


def test_truncation_is_detected_at_any_byte(tmp_path):
    for i in range(60):
        assert ends_early(*write(tmp_path / "a.jpg", photo(), 0.3 + i / 2000))


@pytest.mark.parametrize("options", ({}, {"progressive": True}, {"restart_marker_rows": 1}))
@pytest.mark.parametrize("color", ("white", "black", "gray", "red"))
def test_a_complete_photo_with_flat_parts_is_accepted(tmp_path, options, color):
    framed = Image.new("RGB", (400, 300), color)
    framed.paste(photo().resize((200, 150)), (50, 20))
    for image in (framed, Image.new("RGB", (400, 300), color), photo()):
        assert not ends_early(*write(tmp_path / "a.jpg", image, **options))


def test_data_after_the_image_is_ignored(tmp_path):
    path, pixels = write(tmp_path / "a.jpg", Image.new("RGB", (64, 64)))
    path.write_bytes(path.read_bytes() + b"trailer \xff\xd9 and more")
    assert not ends_early(path, pixels)


def test_other_formats_are_accepted(tmp_path):
    Image.new("RGB", (64, 64)).save(tmp_path / "a.png")
    assert not ends_early(tmp_path / "a.png", load_photo(tmp_path / "a.png", (32, 32)))
