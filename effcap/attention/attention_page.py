"""Writes captions whose words show where the captioner looked as one self-contained HTML page."""

from __future__ import annotations

import html
from collections.abc import Sequence

from effcap.attention.drawing import NOTE, Sheet
from effcap.display import image_url
from effcap.utils.html_page import html_page

HINT = (
    "Point at a word, or reach it with the Tab key. Colors are relative to the highest value of "
    "each word."
)


def attention_page(sheets: Sequence[Sheet]) -> str:
    """Returns a page of photos with captions; pointing at a word draws its map over the photo.

    The page holds all pictures, contains no scripts and loads nothing. It follows the reader's
    light or dark color scheme, and words can be reached by keyboard.
    """
    most = max((len(sheet.tiles) for sheet in sheets), default=0)
    rules = "\n".join(
        f".photo:has(.w{i}:hover) .m{i}, .photo:has(.w{i}:focus) .m{i} {{ opacity: 1; }}"
        for i in range(most)
    )
    figures = "\n".join(_figure(sheet) for sheet in sheets)
    return html_page("Where the captioner looked", f"{HINT} {NOTE}", figures, STYLE + rules)


def _figure(sheet: Sheet) -> str:
    """Returns the HTML of a photo, its maps and its caption."""
    pictures = [f'<img class="base" src="{image_url(sheet.photo)}" alt="The photo">']
    words = []
    for i, (word, peak, image) in enumerate(sheet.tiles):
        text, address = html.escape(word), image_url(image)
        alt = f'alt="Where the captioner looked for {text}"'
        pictures.append(f'<img class="map m{i}" src="{address}" {alt}>')
        words.append(f'<span class="w w{i}" tabindex="0" title="{peak}">{text}</span>')
    width, height = sheet.photo.size
    return (
        f'<figure class="photo"><div class="stack" style="aspect-ratio: {width} / {height}">'
        f"{''.join(pictures)}</div>"
        f'<figcaption><p class="words" dir="auto">{" ".join(words)}</p>'
        f'<p class="quiet">{html.escape(sheet.description)}</p></figcaption></figure>'
    )


STYLE = """\
:root { --mark: #fbe3b0; }
@media (prefers-color-scheme: dark) { :root { --mark: #5a4310; } }
.quiet { color: var(--quiet); font-size: .8125rem; }
main { display: grid; grid-template-columns: repeat(auto-fill, minmax(min(26rem, 100%), 1fr));
  gap: 1.5rem; align-items: start; }
.photo { background: var(--card); border: 1px solid var(--line); border-radius: 12px;
  overflow: hidden; break-inside: avoid; }
.stack { position: relative; max-height: 75vh; margin: 0 auto; }
.stack img { position: absolute; inset: 0; width: 100%; height: 100%; }
.map { opacity: 0; transition: opacity .12s; }
figcaption { padding: .8rem 1.1rem; }
.words { font-size: 1.15rem; margin-bottom: .3rem; }
.w { padding: .1em .15em; border-radius: 5px; cursor: default; }
.w:hover, .w:focus { background: var(--mark); outline: none; }
"""
