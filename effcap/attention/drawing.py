"""Draws maps over photos, and grids of them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from io import BytesIO
from os import PathLike
from pathlib import Path
from typing import NamedTuple

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from effcap.images import Region
from effcap.utils.files import write_bytes_atomically
from effcap.utils.fonts import find_font, load_font, reads_from_right, shorten, wrap
from effcap.utils.html_page import write_html

TILE = 230  # pixels, side of the square that each photo is fitted to
GAP = 14
LABEL = 44  # pixels below each photo
TEXT, QUIET = "#1e1d1a", "#6b675f"
NOTE = (
    "A map is not an explanation: it shows where a word drew on features of the photo, not why it "
    "was chosen."
)
# Dark violet to yellow, of even steps in brightness: readable in gray and when color-blind.
COLORS = (
    (13, 8, 60),
    (84, 15, 109),
    (165, 44, 96),
    (225, 93, 55),
    (250, 160, 20),
    (252, 240, 140),
)
MOST_OPAQUE = 0.78
PICTURE_SUFFIXES = (".png", ".html")


class Tile(NamedTuple):
    """The map of a word, drawn over the photo."""

    word: str
    note: str
    image: Image.Image


class Sheet(NamedTuple):
    """What a picture of a photo's maps shows."""

    photo: Image.Image
    caption: str
    tiles: Sequence[Tile]
    description: str


def overlay(photo: Image.Image, heat: np.ndarray, region: Region) -> Image.Image:
    """Draws a map over a photo: darker and gray where it is low, in warm colors where it is high.

    Args:
        photo: RGB image.
        heat: (h, w), not negative; colors are relative to its highest value.
        region: the part of the photo that the map covers; see `PhotoAttention.region`.
    """
    strength = enlarge_map(heat, photo.size, region)[..., None]  # (H,W,1)
    pixels = np.asarray(photo, np.float32)  # (H,W,3)
    gray = pixels.mean(axis=2, keepdims=True)  # (H,W,1)
    dim = 0.75 * (0.6 * gray + 0.4 * pixels)  # (H,W,3)
    alpha = MOST_OPAQUE * strength  # (H,W,1)
    mixed = (1 - alpha) * dim + alpha * heat_colors(strength[..., 0])  # (H,W,3)
    return Image.fromarray(np.clip(mixed + 0.5, 0, 255).astype(np.uint8))


def heat_colors(strength: np.ndarray) -> np.ndarray:
    """Returns the colors (..., 3) in 0..255 of strengths (...) in 0..1."""
    steps = np.linspace(0, 1, len(COLORS))
    channels = [np.interp(strength, steps, channel) for channel in zip(*COLORS, strict=True)]
    return np.stack(channels, axis=-1)  # (...,3)


def enlarge_map(heat: np.ndarray, size: tuple[int, int], region: Region) -> np.ndarray:
    """Enlarges a map to a photo of size (width, height): strengths (H, W) in 0..1."""
    width, height = size
    highest = float(heat.max())
    if not highest > 0:
        return np.zeros((height, width), np.float32)
    left, top, right, bottom = (
        round(side * length) for side, length in zip(region, 2 * size, strict=True)
    )
    image = Image.fromarray((heat / highest).astype(np.float32))
    image = image.resize((max(1, right - left), max(1, bottom - top)), Image.Resampling.BICUBIC)
    canvas = Image.new("F", size)
    canvas.paste(image, (left, top))
    return np.clip(np.asarray(canvas), 0, 1)


def peak_text(heat: np.ndarray) -> str:
    """Describes how far a map's highest value is above that of an even map."""
    mean = float(heat.mean())
    return f"highest: {heat.max() / mean:.1f} times the mean" if mean > 0 else "nowhere"


def draw_sheet(sheet: Sheet, columns: int = 5) -> Image.Image:
    """Draws the photo and the map of each word; see `PhotoAttention.plot`."""
    tiles = [Tile("", "", sheet.photo), *sheet.tiles]
    columns = max(1, min(columns, len(tiles)))
    width = columns * (TILE + GAP) + GAP
    title = text_lines(sheet.caption, 20, width - 2 * GAP)
    notes = [
        line
        for text in (sheet.description + ".", NOTE)
        for line in text_lines(text, 13, width - 2 * GAP)
    ]
    head = GAP + 28 * len(title) + 6
    rows = -(-len(tiles) // columns)
    photo = sheet.photo.copy()
    photo.thumbnail((TILE, TILE), Image.Resampling.LANCZOS)
    tile_height = photo.height + LABEL + GAP
    bar_top = head + rows * tile_height
    height = bar_top + 26 + 19 * len(notes) + GAP
    picture = Image.new("RGB", (width, height), "white")
    writer = Writer(picture)
    for i, line in enumerate(title):
        writer.write((GAP, GAP + 28 * i), line, 20)
    for i, (word, note, image) in enumerate(tiles):
        left = GAP + i % columns * (TILE + GAP)
        top = head + i // columns * tile_height
        shown = image.resize(photo.size, Image.Resampling.LANCZOS)
        picture.paste(shown, (left + (TILE - shown.width) // 2, top))
        middle, top = left + TILE / 2, top + shown.height
        writer.write((middle, top + 5), word, 17, anchor="ma", width=TILE)
        writer.write((middle, top + 27), note, 12, QUIET, "ma")
    _draw_scale(picture, writer, bar_top)
    for i, line in enumerate(notes):
        writer.write((GAP, bar_top + 26 + 19 * i), line, 13, QUIET)
    return picture


def _draw_scale(picture: Image.Image, writer: Writer, top: int) -> None:
    """Draws the scale of colors with its ends."""
    strength = np.linspace(0, 1, 160, dtype=np.float32)[None].repeat(12, axis=0)  # (12,160)
    colors = heat_colors(strength)  # (12,160,3)
    writer.write((GAP, top), "0", 12, QUIET)
    picture.paste(Image.fromarray(colors.astype(np.uint8)), (GAP + 12, top + 1))
    writer.write((GAP + 178, top), "highest of the word", 12, QUIET)


class Writer:
    """Writes text into a picture, with a font for its script or, without one, Pillow's own.

    Args:
        picture: picture to write into.
    """

    def __init__(self, picture: Image.Image) -> None:
        self.draw = ImageDraw.Draw(picture)

    def write(
        self,
        position: tuple[float, float],
        text: str,
        size: int,
        color: str = TEXT,
        anchor: str = "la",
        width: float | None = None,
    ) -> None:
        """Writes a line of text, cut to `width` pixels if that is given."""
        font = text_font(text, size)
        shown = text if width is None else shorten(text, font, width)
        has_layout = font.layout_engine == ImageFont.Layout.RAQM
        direction = "rtl" if has_layout and reads_from_right(text) else None
        self.draw.text(position, shown, color, font, anchor, direction=direction)


def text_font(text: str, size: int) -> ImageFont.FreeTypeFont:
    """Returns a font for a text, in which some of its characters may be missing.

    Raises:
        ImportError: Pillow was built without fonts.
    """
    font = find_font(text, size) or load_font("", size)
    if font is None:
        raise ImportError(
            "This Pillow has no FreeType, which draws text: pip install --upgrade pillow"
        )
    return font


def text_lines(text: str, size: int, width: float) -> list[str]:
    """Splits a text into lines of at most `width` pixels."""
    return wrap(text, text_font(text, size), width)


def save_pictures(
    path: str | PathLike, pictures: Callable[[], Sequence[Image.Image]], page: Callable[[], str]
) -> None:
    """Writes pictures below each other as `.png`, or a page in their place as `.html`.

    Args:
        path: file to write; missing folders are created.
        pictures: draws the pictures.
        page: returns the HTML of the page.

    Raises:
        ValueError: the suffix is another, or there is no picture.
        OSError: the file cannot be written.
    """
    path = check_picture_file(path)
    if path.suffix.lower() == ".html":
        write_html(path, page())
        return
    drawn = pictures()
    if not drawn:
        raise ValueError(f"There is nothing to draw in {path}")
    whole = Image.new("RGB", (max(x.width for x in drawn), sum(x.height for x in drawn)), "white")
    top = 0
    for picture in drawn:
        whole.paste(picture, (0, top))
        top += picture.height
    path.parent.mkdir(parents=True, exist_ok=True)
    write_bytes_atomically(path, png_bytes(whole))


def png_bytes(picture: Image.Image) -> bytes:
    """Returns a picture as a PNG file."""
    file = BytesIO()
    picture.save(file, "PNG")
    return file.getvalue()


def check_picture_file(path: str | PathLike) -> Path:
    """Returns the path of a picture to write.

    Raises:
        ValueError: the suffix is neither `.png` nor `.html`.
    """
    path = Path(path)
    if path.suffix.lower() not in PICTURE_SUFFIXES:
        raise ValueError(
            f"Expected a file with the suffix {' or '.join(PICTURE_SUFFIXES)}. Received: {path}"
        )
    return path
