"""A JPEG cut short is told from one whose picture is flat at its end."""

from __future__ import annotations

import io

import numpy as np
import pytest
from PIL import Image

from effcap.images import load_photo
from effcap.trainers.data.truncated_jpeg import ends_early

NOISE = np.random.default_rng(0).integers(0, 256, (60, 80, 3), np.uint8)


def write(path, image, cut=None, **options):
    """A JPEG; `cut` is the share of its data kept before an end marker."""
    file = io.BytesIO()
    image.save(file, "JPEG", **options)
    data = file.getvalue()
    if cut is not None:
        start = data.rfind(b"\xff\xda") + 20
        data = data[: int(start + cut * (len(data) - 2 - start))] + b"\xff\xd9"
    path.write_bytes(data)
    return path, load_photo(path, (112, 112))


def photo() -> Image.Image:
    return Image.fromarray(NOISE).resize((400, 300))


@pytest.mark.parametrize("cut", (0.0, 0.2, 0.5, 0.9))
@pytest.mark.parametrize("orientation", (1, 3, 6, 8))
@pytest.mark.parametrize("mode", ("RGB", "L", "CMYK"))
def test_a_photo_cut_short_behind_an_end_marker_is_noticed(tmp_path, cut, orientation, mode):
    exif = Image.Exif()
    exif[0x0112] = orientation
    given = write(tmp_path / "a.jpg", photo().convert(mode), cut, exif=exif, quality=90)
    assert ends_early(*given)


def test_a_cut_wherever_it_falls_is_noticed(tmp_path):
    for i in range(60):
        assert ends_early(*write(tmp_path / "a.jpg", photo(), 0.3 + i / 2000))


@pytest.mark.parametrize("options", ({}, {"progressive": True}, {"restart_marker_rows": 1}))
@pytest.mark.parametrize("colour", ("white", "black", "grey", "red"))
def test_a_whole_photo_with_flat_parts_is_left_alone(tmp_path, options, colour):
    framed = Image.new("RGB", (400, 300), colour)
    framed.paste(photo().resize((200, 150)), (50, 20))
    for image in (framed, Image.new("RGB", (400, 300), colour), photo()):
        assert not ends_early(*write(tmp_path / "a.jpg", image, **options))


def test_what_follows_the_picture_does_no_harm(tmp_path):
    path, pixels = write(tmp_path / "a.jpg", Image.new("RGB", (64, 64)))
    path.write_bytes(path.read_bytes() + b"trailer \xff\xd9 and more")
    assert not ends_early(path, pixels)


def test_other_formats_are_left_alone(tmp_path):
    Image.new("RGB", (64, 64)).save(tmp_path / "a.png")
    assert not ends_early(tmp_path / "a.png", load_photo(tmp_path / "a.png", (32, 32)))
