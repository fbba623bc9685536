"""Draws photos with their captions as pictures of one size."""

from __future__ import annotations

from PIL import Image, ImageDraw, ImageOps

from effcap.utils.fonts import find_font, load_font, reads_from_right, wrap

WIDTH, HEIGHT = 360, 270  # of the photo's area, in pixels
FONT_SIZE, LINE_HEIGHT, MARGIN = 16, 23, 10  # in pixels
NUM_LINES = 4  # room for a caption; longer captions make the picture higher
MAT, PAPER, INK, GREY = "#eceae5", "#ffffff", "#1e1d1a", "#6b675f"


def draw_caption(photo: Image.Image, caption: str) -> Image.Image | None:
    """Returns a photo above its caption.

    Args:
        photo: the photo, which is shown whole and reduced if it is larger than its area.
        caption: its caption, which is wrapped.

    Returns:
        A picture of one size for all captions of up to four lines; None if no font of this machine
        has the caption's characters.
    """
    font = find_font(caption, FONT_SIZE)
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
    font = load_font("", FONT_SIZE)
    if font is None:  # Pillow without FreeType
        return picture
    reason = reason.encode("ascii", "replace").decode()  # the font has no other characters
    lines = ["Not readable", *wrap(reason, font, WIDTH - 4 * MARGIN)[: NUM_LINES + 2]]
    top = (HEIGHT - LINE_HEIGHT * len(lines)) // 2
    for i, line in enumerate(lines):
        position = (WIDTH / 2, top + LINE_HEIGHT * i)
        draw.text(position, line, GREY if i else INK, font, anchor="ma")
    return picture
