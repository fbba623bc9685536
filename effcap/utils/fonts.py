"""Fonts for text in pictures, in any script that a font of the machine has."""

from __future__ import annotations

import unicodedata
from collections.abc import Iterator
from functools import cache

from PIL import ImageFont, features

RIGHT_TO_LEFT = ("R", "AL")  # bidirectional classes of Unicode
NOT_A_CHARACTER = "\uffff"  # drawn as a missing one
# Fonts of Linux, Windows and macOS that are looked for where Pillow's own font lacks characters.
SYSTEM_FONTS = (
    "DejaVuSans.ttf",
    "NotoSans-Regular.ttf",
    "NotoSansCJK-Regular.ttc",
    "NotoSansArabic-Regular.ttf",
    "NotoSansHebrew-Regular.ttf",
    "NotoSansDevanagari-Regular.ttf",
    "NotoSansThai-Regular.ttf",
    "wqy-zenhei.ttc",
    "wqy-microhei.ttc",
    "arial.ttf",
    "msyh.ttc",
    "msgothic.ttc",
    "malgun.ttf",
    "Arial Unicode.ttf",
    "PingFang.ttc",
    "AppleSDGothicNeo.ttc",
)


def find_font(text: str, size: int) -> ImageFont.FreeTypeFont | None:
    """Returns a font of a size in pixels that has all characters of a text; None without one.

    Scripts from right to left, and those with combining marks, also need Pillow's text layout
    engine Raqm, without which they would be drawn in a wrong order.
    """
    needs_layout = any(
        unicodedata.bidirectional(character) in RIGHT_TO_LEFT
        or unicodedata.category(character).startswith("M")
        for character in text
    )
    if needs_layout and not features.check("raqm"):
        return None
    for font in fonts(size):
        if has_characters(font, text):
            return font
    return None


def fonts(size: int) -> Iterator[ImageFont.FreeTypeFont]:
    """Yields Pillow's font, then those of the system."""
    for name in ("", *SYSTEM_FONTS):
        font = load_font(name, size)
        if font is not None:
            yield font


@cache
def load_font(name: str, size: int) -> ImageFont.FreeTypeFont | None:
    """Returns a font of the system by file name, or Pillow's own for ""; None if it is missing."""
    if not name:
        font = ImageFont.load_default(size)
        return font if isinstance(font, ImageFont.FreeTypeFont) else None
    try:
        return ImageFont.truetype(name, size)
    except OSError:
        return None


def has_characters(font: ImageFont.FreeTypeFont, text: str) -> bool:
    """Returns whether a font has all visible characters of a text."""
    missing = bytes(font.getmask(NOT_A_CHARACTER))
    return all(
        bytes(font.getmask(character)) != missing
        for character in set(text)
        if not character.isspace() and unicodedata.category(character) not in ("Cf", "Cc", "Mn")
    )


def reads_from_right(text: str) -> bool:
    """Returns whether the first letter of a text is of a script from right to left."""
    for character in text:
        kind = unicodedata.bidirectional(character)
        if kind == "L" or kind in RIGHT_TO_LEFT:
            return kind != "L"
    return False


def wrap(text: str, font: ImageFont.FreeTypeFont, width: float) -> list[str]:
    """Returns the lines of a text, at least one.

    Lines end between words, and within words that are wider than a line, such as those of scripts
    without spaces.
    """
    lines, line = [], ""
    for word in text.split():
        longer = f"{line} {word}".strip()
        if font.getlength(longer) <= width:
            line = longer
            continue
        if line:
            lines.append(line)
        line = ""
        for character in word:
            if line and font.getlength(line + character) > width:
                lines.append(line)
                line = ""
            line += character
    return [*lines, line]


def shorten(text: str, font: ImageFont.FreeTypeFont, width: float) -> str:
    """Returns a text cut to `width` pixels, with an ellipsis if it is cut."""
    if font.getlength(text) <= width:
        return text
    while text and font.getlength(text + "…") > width:
        text = text[:-1]
    return text + "…"
