"""Pictures of photos with captions: one size, wrapped lines, other scripts."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image, features

from effcap.trainers.engine.caption_picture import (
    HEIGHT,
    MARGIN,
    WIDTH,
    draw_caption,
    placeholder_picture,
)
from effcap.utils import fonts
from effcap.utils.fonts import find_font, load_font, wrap

ARABIC, HEBREW, FRENCH = "كلب يجري", "ילד רץ", "Un café déjà froid"


def draw(size: tuple[int, int], caption: str) -> np.ndarray:
    """Returns the pixels (h, w, 3) of a red photo with a caption."""
    return np.asarray(draw_caption(Image.new("RGB", size, "red"), caption))


def ink_columns(pixels: np.ndarray) -> np.ndarray:
    """Returns the columns of the caption's strip that are not white."""
    return np.flatnonzero(pixels[HEIGHT:].min(axis=(0, 2)) < 128)


@pytest.mark.parametrize("size", ((320, 200), (150, 320), (40, 30), (900, 90)))
def test_pictures_of_all_photos_and_captions_have_one_size(size):
    captions = ("", "A dog.", "A brown dog with a very long tail runs over the grass. " * 2)
    pictures = [draw(size, caption) for caption in captions]
    assert len({pixels.shape for pixels in pictures}) == 1 and pictures[0].shape[1] == WIDTH
    red = (pictures[0] == (255, 0, 0)).all(axis=-1)  # (h,w)
    height, width = np.ptp(np.argwhere(red), axis=0) + 1
    assert width / height == pytest.approx(size[0] / size[1], rel=0.02)  # the whole photo
    if size[0] <= WIDTH and size[1] <= HEIGHT:
        assert (width, height) == size  # not enlarged


def test_a_long_caption_is_wrapped_between_its_margins_and_never_cut():
    text = "A brown dog with a very long tail runs over the grass. " * 5
    pixels = draw((64, 64), text)
    columns = ink_columns(pixels)
    assert columns[0] >= MARGIN and columns[-1] < WIDTH - MARGIN
    assert pixels.shape[0] > draw((64, 64), "")[:].shape[0]
    assert (pixels[-3:] == 255).all()
    assert " ".join(wrap(text, find_font(text, 16), WIDTH)) == text.strip()


@pytest.mark.parametrize("text", ("x" * 300, "http://a.example/" + "y" * 200))
def test_words_wider_than_a_line_are_broken(text):
    font = load_font("", 16)
    lines = wrap(f"see {text}", font, 200)
    assert "".join(lines[1:]) == text
    assert all(font.getlength(line) <= 200 for line in lines)


@pytest.mark.parametrize("text", (ARABIC, HEBREW))
def test_scripts_from_right_to_left_start_at_the_right(text):
    if find_font(text, 16) is None:
        pytest.skip("no font of this machine has the script")
    columns = ink_columns(draw((64, 64), text))
    assert columns[0] > WIDTH / 2 and columns[-1] > WIDTH - MARGIN - 6


def test_letters_outside_of_ascii_are_drawn_with_a_font_that_has_them():
    font = find_font(FRENCH, 16)
    if font is None:
        pytest.skip("no font of this machine has the script")
    assert font.getmask("é").getbbox() and bytes(font.getmask("é")) != bytes(font.getmask("\uffff"))


def test_right_to_left_without_a_layout_engine_is_not_drawn(monkeypatch):
    monkeypatch.setattr(features, "check", lambda name: False)
    assert find_font(ARABIC, 16) is None and find_font("A dog.", 16) is not None


def test_without_fonts_of_the_system_other_scripts_are_not_drawn(monkeypatch):
    monkeypatch.setattr(fonts, "SYSTEM_FONTS", ())
    assert draw_caption(Image.new("RGB", (9, 9)), "犬が走る。") is None


def test_a_placeholder_shows_a_long_reason_in_the_size_of_a_photo():
    picture = placeholder_picture("there is no such file: /home/é/" + "x" * 500)
    assert picture.size == (WIDTH, HEIGHT) and len(picture.getcolors(10**5)) > 2
