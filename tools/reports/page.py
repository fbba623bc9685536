"""Writes photos and captions as one self-contained HTML page."""

from __future__ import annotations

import base64
import html
from collections.abc import Mapping, Sequence
from io import BytesIO
from pathlib import Path
from string import Template
from typing import TypeGuard

import numpy as np

from effcap.images import Photo, UnreadablePhoto, load_thumbnail

THUMBNAIL_SIDE = 360  # pixels

Scored = tuple[str, float]
Line = tuple[str, float | None]  # caption, score
Captions = str | Scored | Sequence[str | Scored] | None


def write_page(
    path: str | Path,
    photos: Sequence[Photo],
    columns: Mapping[str, Sequence[Captions]],
    title: str = "Captions",
    note: str = "",
    *,
    names: Sequence[str] | None = None,
    sections: Mapping[int, str] | None = None,
) -> Path:
    """Writes photos with captions below them as one HTML file.

    Thumbnails of at most 360 x 360 pixels are embedded as JPEG; the file contains no scripts and
    loads nothing. It follows the reader's light or dark color scheme and can be printed.

    Args:
        path: HTML file to write; missing folders are created.
        photos: photos as `effcap.load_photo` takes them. A photo that cannot be read is shown as a
            placeholder with the reason.
        columns: captions by heading, such as "before", "after" or "references". Each column has an
            entry for each photo: a caption, a (caption, score) pair, a sequence of either, or None.
        title: title of the page.
        note: line below the title, such as the model and the data.
        names: names of the photos; by default the file names.
        sections: headings by index of the photo that starts the section.

    Returns:
        The path of the file.

    Raises:
        ValueError: a column or `names` has more or fewer entries than there are photos.
        TypeError: an entry is not a caption.
    """
    for heading, captions in columns.items():
        if isinstance(captions, str) or len(captions) != len(photos):
            raise ValueError(
                f"Expected {len(photos)} entries in column {heading!r}, one per photo. "
                f"Received: {captions if isinstance(captions, str) else len(captions)!r}"
            )
    if names is not None and len(names) != len(photos):
        raise ValueError(f"Expected {len(photos)} names, one per photo. Received: {len(names)}")
    cards = []
    for i, photo in enumerate(photos):
        rows = {heading: _lines(captions[i]) for heading, captions in columns.items()}
        name = _file_name(photo, i) if names is None else str(names[i])
        if sections and i in sections:
            cards.append(f"<h2>{html.escape(sections[i])}</h2>")
        cards.append(_card(photo, name, rows))
    count = f"{len(photos)} photo" + ("" if len(photos) == 1 else "s")
    text = PAGE.substitute(
        title=html.escape(title),
        note=html.escape(" · ".join(text for text in (note, count) if text)),
        cards="\n".join(cards) or '<p class="none">No photos.</p>',
    )
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    # Replaces surrogates, which come from file names that are not UTF-8.
    path.write_bytes(text.encode("utf-8", errors="replace"))
    return path


def _lines(captions: Captions) -> list[Line]:
    """Returns the captions of one photo as (caption, score or None) pairs."""
    if captions is None:
        return []
    if isinstance(captions, str) or _is_scored(captions):
        captions = [captions]
    if not isinstance(captions, Sequence):
        raise TypeError(f"A caption must be a str or a (str, score) pair. Received: {captions!r}")
    lines: list[Line] = []
    for caption in captions:
        if _is_scored(caption):
            lines.append((caption[0], float(caption[1])))
        elif isinstance(caption, str):
            lines.append((caption, None))
        else:
            raise TypeError(
                f"A caption must be a str or a (str, score) pair. Received: {caption!r}"
            )
    return lines


def _is_scored(caption: object) -> TypeGuard[Scored]:
    """Returns whether an object is a (caption, score) pair."""
    return (
        isinstance(caption, tuple)
        and len(caption) == 2
        and isinstance(caption[0], str)
        and isinstance(caption[1], int | float | np.number)
    )


def _file_name(photo: Photo, i: int) -> str:
    """Returns the file name of a photo, or "photo N" without one."""
    if isinstance(photo, str | Path):
        return Path(photo).name
    path = getattr(photo, "filename", None) or getattr(photo, "name", None)
    return Path(path).name if isinstance(path, str | Path) and str(path) else f"photo {i + 1}"


def _card(photo: Photo, name: str, rows: Mapping[str, list[Line]]) -> str:
    """Returns the HTML of a photo with its captions."""
    first = next((lines[0][0] for lines in rows.values() if lines), name)
    try:
        address, size = _thumbnail(photo)
        picture = (
            f'<img src="{address}" width="{size[0]}" height="{size[1]}" alt="{html.escape(first)}">'
        )
    except UnreadablePhoto as error:
        picture = (
            f'<div class="unreadable" role="img" aria-label="{html.escape(name)}, not readable">'
            f"<strong>Not readable</strong><span>{html.escape(error.reason)}</span></div>"
        )
    body = "".join(_row(heading, lines) for heading, lines in rows.items())
    return (
        f'<figure>{picture}<figcaption><p class="name">{html.escape(name)}</p>'
        f"<dl>{body}</dl></figcaption></figure>"
    )


def _row(heading: str, lines: list[Line]) -> str:
    """Returns the HTML of a heading with its captions."""
    cells = []
    for caption, score in lines:
        words = html.escape(caption) if caption.strip() else '<em class="none">empty</em>'
        number = "" if score is None else f"{score:.3g}".replace("-", "\N{MINUS SIGN}")
        digits = number and f' <span class="score">{number}</span>'
        cells.append(f'<dd dir="auto">{words}{digits}</dd>')
    body = "".join(cells) or '<dd class="none">–</dd>'
    return f"<div><dt>{html.escape(str(heading))}</dt>{body}</div>"


def _thumbnail(photo: Photo) -> tuple[str, tuple[int, int]]:
    """Returns a JPEG thumbnail as a data URL, and its (width, height) in pixels."""
    image = load_thumbnail(photo, (THUMBNAIL_SIDE, THUMBNAIL_SIDE))
    file = BytesIO()
    image.save(file, "JPEG", quality=85, optimize=True, progressive=True)
    return f"data:image/jpeg;base64,{base64.b64encode(file.getvalue()).decode()}", image.size


PAGE = Template("""\
<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="color-scheme" content="light dark">
<title>$title</title>
<style>
:root {
  --page: #f6f5f2; --card: #fff; --mat: #eceae5; --line: #e2dfd8;
  --text: #1e1d1a; --quiet: #6b675f; --warn: #a3402a;
}
@media (prefers-color-scheme: dark) {
  :root {
    --page: #161614; --card: #1f1f1c; --mat: #121210; --line: #33322d;
    --text: #ebe9e3; --quiet: #a09b90; --warn: #f0937b;
  }
}
* { box-sizing: border-box; margin: 0; }
body {
  max-width: 1680px; margin: 0 auto; padding: clamp(1rem, 4vw, 3.5rem);
  background: var(--page); color: var(--text);
  font: 16px/1.5 system-ui, -apple-system, "Segoe UI", Roboto, "Helvetica Neue", sans-serif;
}
header { margin-bottom: 2rem; }
h1 { font-size: clamp(1.5rem, 3vw, 2.1rem); line-height: 1.2; letter-spacing: -.02em; }
h2 { grid-column: 1 / -1; font-size: 1.2rem; line-height: 1.2; }
h2:not(:first-child) { margin-top: 1.5rem; }
header p { margin-top: .4rem; color: var(--quiet); }
main { display: grid; grid-template-columns: repeat(auto-fill, minmax(min(18rem, 100%), 1fr));
  gap: 1.5rem; }
figure { display: flex; flex-direction: column; overflow: hidden; break-inside: avoid;
  background: var(--card); border: 1px solid var(--line); border-radius: 12px; }
img, .unreadable { display: block; width: 100%; height: auto; aspect-ratio: 3 / 2;
  background: var(--mat); }
img { object-fit: contain; }
.unreadable { display: flex; flex-direction: column; align-items: center; justify-content: center;
  gap: .4rem; padding: 1.25rem; text-align: center; border-bottom: 1px dashed var(--line); }
.unreadable strong { color: var(--warn); font-weight: 600; }
.unreadable span { max-height: 7.5em; overflow: hidden; color: var(--quiet);
  font-size: .8125rem; overflow-wrap: anywhere; }
figcaption { padding: .9rem 1.1rem 1.1rem; }
.name { margin-bottom: .6rem; color: var(--quiet); font-size: .75rem; overflow-wrap: anywhere; }
dl > div + div { margin-top: .7rem; padding-top: .7rem; border-top: 1px solid var(--line); }
dt { color: var(--quiet); font-size: .75rem; font-weight: 600; letter-spacing: .02em;
  overflow-wrap: anywhere; }
dd { overflow-wrap: anywhere; text-wrap: pretty; }
dd + dd { margin-top: .3rem; }
.score { margin-left: .25rem; color: var(--quiet); font-size: .75rem; white-space: nowrap;
  font-variant-numeric: tabular-nums; }
.none { color: var(--quiet); }
@media print { body { padding: 0; background: none; } main { gap: .75rem; } }
</style>
</head>
<body>
<header><h1>$title</h1><p>$note</p></header>
<main>
$cards
</main>
</body>
</html>
""")
