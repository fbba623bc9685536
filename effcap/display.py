"""HTML that notebooks show: captions, photos with captions, and tables.

Styles are inline and colors those of the reader's theme, because notebooks and their viewers remove
style sheets.
"""

from __future__ import annotations

import base64
import html
from collections.abc import Iterable, Mapping, Sequence
from io import BytesIO
from typing import Any

from effcap.images import Photo, UnreadablePhoto, load_thumbnail

SIDE = 240  # pixels, of photos
MAX_PHOTOS = 24  # a notebook keeps its outputs: more photos would make it slow
QUIET = "opacity:.65;font-size:85%"


def caption_html(
    text: str, pieces: Sequence[tuple[str, float]], numbers: Mapping[str, float]
) -> str:
    """Returns the HTML of a caption.

    Args:
        text: text of the caption, shown where there are no pieces.
        pieces: texts of the tokens with their probabilities, which are underlined the more, the
            less probable they are.
        numbers: numbers to show after the caption by name.
    """
    if pieces:
        words = "".join(_piece(piece, probability) for piece, probability in pieces)
    else:
        words = html.escape(text) or "<i>empty</i>"
    shown = " · ".join(f"{name} {value:.3g}" for name, value in numbers.items())
    return f'<div dir="auto">{words} <span style="{QUIET}">{html.escape(shown)}</span></div>'


def _piece(text: str, probability: float) -> str:
    """Returns the HTML of a token's text; spaces are outside of the underline."""
    word = text.strip()
    if not word:
        return html.escape(text)
    before, _, after = text.partition(word)
    opacity = round(1 - probability, 2)
    style = f"border-bottom:2px solid rgba(200,85,43,{opacity})"
    title = f"probability {probability:.2g}"
    return f'{before}<span style="{style}" title="{title}">{html.escape(word)}</span>{after}'


def photo_html(photo: Photo | None, captions: Iterable[str], name: str = "") -> str:
    """Returns the HTML of a photo with captions beside it.

    Args:
        photo: photo to show; None for none.
        captions: HTML of the captions.
        name: name of the photo.
    """
    label = f'<div style="{QUIET}">{html.escape(name)}</div>' if name else ""
    return (
        '<div style="display:flex;gap:1em;align-items:flex-start;margin:.5em 0;max-width:60em">'
        f'<div style="flex:0 0 {SIDE}px;text-align:center">{_picture(photo)}</div>'
        f'<div style="flex:1;text-align:left">{label}{"".join(captions)}</div></div>'
    )


def _picture(photo: Photo | None) -> str:
    """Returns the HTML of a photo, or why it cannot be read."""
    if photo is None:
        return ""
    try:
        image = load_thumbnail(photo, (SIDE, SIDE))
    except UnreadablePhoto as error:
        return f'<i style="{QUIET}">{html.escape(str(error))}</i>'
    return f'<img src="{image_url(image)}" width="{image.width}" height="{image.height}">'


def image_url(image: Any) -> str:
    """Returns a Pillow image as a data URL of a JPEG."""
    return data_url(jpeg_bytes(image))


def data_url(data: bytes, kind: str = "jpeg") -> str:
    """Returns the contents of an image file, "jpeg" or "png", as a data URL."""
    return f"data:image/{kind};base64,{base64.b64encode(data).decode()}"


def jpeg_bytes(image: Any) -> bytes:
    """Returns a Pillow image as a JPEG file."""
    file = BytesIO()
    image.convert("RGB").save(file, "JPEG", quality=82, optimize=True)
    return file.getvalue()


def list_html(blocks: Iterable[str], total: int, others: str = "") -> str:
    """Returns the HTML of several photos, with the number of those that are left out.

    Args:
        blocks: HTML of each photo, of which at most 24 are used.
        total: number of photos.
        others: HTML after them.
    """
    shown = [block for _, block in zip(range(MAX_PHOTOS), blocks, strict=False)]
    rest = total - len(shown)
    more = f'<div style="{QUIET}">and {rest} more</div>' if rest > 0 else ""
    return f"<div>{''.join(shown)}{more}{others}</div>"


def table_html(title: str, rows: Mapping[str, Any]) -> str:
    """Returns the HTML of a table of names and values."""
    cells = "".join(
        f'<tr><td style="text-align:left;{QUIET}">{html.escape(name)}</td>'
        f'<td style="text-align:left">{html.escape(str(value))}</td></tr>'
        for name, value in rows.items()
    )
    return f"<div><b>{html.escape(title)}</b><table>{cells}</table></div>"
