"""Fonts for text in pictures, in any script that an installed font has."""

from __future__ import annotations

from functools import cache

from PIL import ImageFont

Font = ImageFont.FreeTypeFont | ImageFont.ImageFont

# Tried in turn for text that Pillow's own font, which has Latin letters, cannot show.
INSTALLED_FONTS = (
    "DejaVuSans.ttf",
    "NotoSans-Regular.ttf",
    "NotoSansCJK-Regular.ttc",
    "NotoSansArabic-Regular.ttf",
    "NotoSansDevanagari-Regular.ttf",
    "Arial Unicode.ttf",
    "arial.ttf",
    "msyh.ttc",
    "YuGothR.ttc",
    "malgun.ttf",
    "PingFang.ttc",
)


def find_font(text: str, size: float) -> Font:
    """Returns a font that shows a text: Pillow's own, or else an installed one.

    Args:
        text: text to draw.
        size: height of the letters in pixels.

    Returns:
        The first font that has all characters; if none has, the first of those with the fewest
        missing ones.
    """
    fonts = [ImageFont.load_default(size=size)]
    characters = set(text) - set(map(chr, range(32, 127)))
    if not characters:
        return fonts[0]
    fonts += [font for font in (_installed(name, size) for name in INSTALLED_FONTS) if font]
    return min(fonts, key=lambda font: sum(not _has(font, x) for x in characters))


@cache
def _installed(name: str, size: float) -> Font | None:
    try:
        return ImageFont.truetype(name, size)
    except OSError:
        return None


def _has(font: Font, character: str) -> bool:
    """Returns whether a font has a glyph of its own for a character."""
    if character.isspace():
        return True
    missing = "\U0010fffd"  # private: no font has it
    drawn, box = font.getmask(character), font.getmask(missing)
    return drawn.size != box.size or bytes(drawn) != bytes(box)
