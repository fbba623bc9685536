"""Photos and captions as parts of HTML pages."""

from __future__ import annotations

import html
from collections.abc import Sequence
from io import BytesIO
from pathlib import Path

from PIL import Image

from effcap.display import data_url
from effcap.images import Photo, load_thumbnail
from effcap.utils.html_page import html_page, write_html

THUMBNAIL_SIDE = 360  # pixels
MINUS = "\N{MINUS SIGN}"

Line = tuple[str, float | None]  # caption, score


def write_card_page(path: Path, title: str, note: str, body: str, style: str = "") -> None:
    """Writes a page with photos and captions; an existing file is replaced by the whole new one.

    Args:
        path: file to write; missing folders are created.
        title, note, body: as in `html_page`.
        style: CSS to add to that of photos and captions.
    """
    write_html(path, html_page(title, note, body, CARD_STYLE + style))


def thumbnail_jpeg(photo: Photo) -> bytes:
    """Returns a JPEG of a photo of at most 360 x 360 pixels.

    Raises:
        UnreadablePhoto: the photo cannot be read.
    """
    image = load_thumbnail(photo, (THUMBNAIL_SIDE, THUMBNAIL_SIDE))
    file = BytesIO()
    image.save(file, "JPEG", quality=85, optimize=True, progressive=True)
    return file.getvalue()


def picture(jpeg: bytes, text: str) -> str:
    """Returns the HTML of an embedded JPEG.

    Args:
        jpeg: contents of the JPEG file.
        text: text for readers who do not see it.
    """
    with Image.open(BytesIO(jpeg)) as image:
        width, height = image.size
    address, text = data_url(jpeg), html.escape(text)
    return f'<img src="{address}" width="{width}" height="{height}" alt="{text}">'


def placeholder(name: str, reason: str) -> str:
    """Returns the HTML shown in place of a photo that cannot be read.

    Args:
        name: name of the photo.
        reason: why it cannot be read.
    """
    return (
        f'<div class="unreadable" role="img" aria-label="{html.escape(name)}, not readable">'
        f"<strong>Not readable</strong><span>{html.escape(reason)}</span></div>"
    )


def caption_rows(heading: str, lines: Sequence[Line]) -> str:
    """Returns the HTML of a heading with its captions, as a part of a `<dl>`."""
    cells = []
    for caption, score in lines:
        number = "" if score is None else f"{score:.3g}".replace("-", MINUS)
        digits = number and f' <span class="score">{number}</span>'
        cells.append(f'<dd dir="auto">{caption_html(caption)}{digits}</dd>')
    body = "".join(cells) or '<dd class="none">–</dd>'
    return f"<div><dt>{html.escape(heading)}</dt>{body}</div>"


def caption_html(caption: str) -> str:
    """Returns the HTML of a caption, which may be empty."""
    return html.escape(caption) if caption.strip() else '<em class="none">empty</em>'


def card(image: str, name: str, rows: str) -> str:
    """Returns the HTML of a photo with its name and captions.

    Args:
        image: HTML of `picture` or `placeholder`; "" if there is no photo.
        name: name of the photo.
        rows: HTML of `caption_rows`.
    """
    return (
        f'<figure>{image}<figcaption><p class="name">{html.escape(name)}</p>'
        f"<dl>{rows}</dl></figcaption></figure>"
    )


CARD_STYLE = """\
.cards { display: grid; grid-template-columns: repeat(auto-fill, minmax(min(18rem, 100%), 1fr));
  gap: 1.5rem; }
.cards h2 { grid-column: 1 / -1; }
.cards h2:not(:first-child) { margin-top: 1.5rem; }
.cards figure { display: flex; flex-direction: column; overflow: hidden; break-inside: avoid;
  background: var(--card); border: 1px solid var(--line); border-radius: 12px; }
img, .unreadable { display: block; width: 100%; height: auto; aspect-ratio: 3 / 2;
  background: var(--mat); }
img { object-fit: contain; }
.unreadable { display: flex; flex-direction: column; align-items: center; justify-content: center;
  gap: .4rem; padding: 1.25rem; text-align: center; border-bottom: 1px dashed var(--line); }
.unreadable strong { color: var(--warn); font-weight: 600; }
.unreadable span { max-height: 7.5em; overflow: hidden; color: var(--quiet);
  font-size: .8125rem; overflow-wrap: anywhere; }
.cards figcaption { padding: .9rem 1.1rem 1.1rem; }
.name { margin-bottom: .6rem; color: var(--quiet); font-size: .75rem; overflow-wrap: anywhere; }
dl > div + div { margin-top: .7rem; padding-top: .7rem; border-top: 1px solid var(--line); }
dt { color: var(--quiet); font-size: .75rem; font-weight: 600; letter-spacing: .02em;
  overflow-wrap: anywhere; }
dd { overflow-wrap: anywhere; text-wrap: pretty; }
dd + dd { margin-top: .3rem; }
.score { margin-left: .25rem; color: var(--quiet); font-size: .75rem; white-space: nowrap;
  font-variant-numeric: tabular-nums; }
.none { color: var(--quiet); }
@media print { .cards { gap: .75rem; } }
"""
