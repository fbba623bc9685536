"""Writes photos and captions as one self-contained HTML page."""

from __future__ import annotations

import html
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TypeGuard

import numpy as np

from effcap.images import Photo, UnreadablePhoto
from effcap.trainers.reports.photo_cards import (
    Line,
    caption_rows,
    card,
    picture,
    placeholder,
    thumbnail_jpeg,
    write_card_page,
)

Scored = tuple[str, float]
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
        rows = {str(heading): _lines(captions[i]) for heading, captions in columns.items()}
        name = _file_name(photo, i) if names is None else str(names[i])
        if sections and i in sections:
            cards.append(f"<h2>{html.escape(sections[i])}</h2>")
        cards.append(_card(photo, name, rows))
    count = f"{len(photos)} photo" + ("" if len(photos) == 1 else "s")
    body = "\n".join(cards) or '<p class="none">No photos.</p>'
    path = Path(path)
    note = " · ".join(text for text in (note, count) if text)
    write_card_page(path, title, note, f'<div class="cards">\n{body}\n</div>')
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
    try:
        text = next((lines[0][0] for lines in rows.values() if lines), name)
        image = picture(thumbnail_jpeg(photo), text)
    except UnreadablePhoto as error:
        image = placeholder(name, error.reason)
    return card(image, name, "".join(caption_rows(*row) for row in rows.items()))
