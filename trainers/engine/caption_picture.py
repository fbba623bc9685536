"""Draws photos with their captions as pictures of one size."""

from __future__ import annotations

import unicodedata
from collections.abc import Iterator
from functools import cache

from PIL import Image, ImageDraw, ImageFont, ImageOps, features

WIDTH, HEIGHT = 360, 270  # of the photo's area, in pixels
FONT_SIZE, LINE_HEIGHT, MARGIN = 16, 23, 10  # in pixels
NUM_LINES = 4  # room for a caption; longer captions make the picture higher
MAT, PAPER, INK, GREY = "#eceae5", "#ffffff", "#1e1d1a", "#6b675f"
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


def draw_caption(photo: Image.Image, caption: str) -> Image.Image | None:
    """Returns a photo above its caption.

    Args:
        photo: the photo, which is shown whole and reduced if it is larger than its area.
        caption: its caption, which is wrapped.

    Returns:
        A picture of one size for all captions of up to four lines; None if no font of this machine
        has the caption's characters.
    """
    font = find_font(caption)
    if font is None:
        return None
    lines = wrap(caption, font, WIDTH - 2 * MARGIN)
    height = HEIGHT + 2 * MARGIN + LINE_HEIGHT * max(NUM_LINES, len(lines))
    picture = Image.new("RGB", (WIDTH, height), PAPER)
    draw = ImageDraw.Draw(picture)
    draw.rectangle((0, 0, WIDTH, HEIGHT - 1), MAT)
    if photo.width > WIDTH or photo.height > HEIGHT:
        photo = ImageOps.contain(photo, (WIDTH, HEIGHT))
    picture.paste(photo, ((WIDTH - photo.width) // 2, (HEIGHT - photo.height) // 2))
    is_rtl = reads_from_right(caption)
    x, anchor = (WIDTH - MARGIN, "ra") if is_rtl else (MARGIN, "la")
    direction = "rtl" if is_rtl else None
    for i, line in enumerate(lines):
        y = HEIGHT + MARGIN + LINE_HEIGHT * i
        draw.text((x, y), line, INK, font, anchor=anchor, direction=direction)
    return picture


def placeholder_picture(reason: str) -> Image.Image:
    """Returns the picture shown in place of a photo that cannot be read, with the reason."""
    picture = Image.new("RGB", (WIDTH, HEIGHT), MAT)
    draw = ImageDraw.Draw(picture)
    font = load_font("")
    if font is None:  # Pillow without FreeType
        return picture
    reason = reason.encode("ascii", "replace").decode()  # the font has no other characters
    lines = ["Not readable", *wrap(reason, font, WIDTH - 4 * MARGIN)[: NUM_LINES + 2]]
    top = (HEIGHT - LINE_HEIGHT * len(lines)) // 2
    for i, line in enumerate(lines):
        position = (WIDTH / 2, top + LINE_HEIGHT * i)
        draw.text(position, line, GREY if i else INK, font, anchor="ma")
    return picture


def find_font(text: str) -> ImageFont.FreeTypeFont | None:
    """Returns a font that has all characters of a text; None if there is none on this machine.

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
    for font in fonts():
        if has_characters(font, text):
            return font
    return None


def fonts() -> Iterator[ImageFont.FreeTypeFont]:
    """Yields Pillow's font, then those of the system."""
    for name in ("", *SYSTEM_FONTS):
        font = load_font(name)
        if font is not None:
            yield font


@cache
def load_font(name: str) -> ImageFont.FreeTypeFont | None:
    """Returns a font of the system by file name, or Pillow's own for ""; None if it is missing."""
    if not name:
        font = ImageFont.load_default(FONT_SIZE)
        return font if isinstance(font, ImageFont.FreeTypeFont) else None
    try:
        return ImageFont.truetype(name, FONT_SIZE)
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
