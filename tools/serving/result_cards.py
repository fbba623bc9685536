"""The results of the page as HTML: a card per photo with its captions."""

from __future__ import annotations

import html
import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from effcap.display import image_url
from effcap.images import load_thumbnail

if TYPE_CHECKING:
    from effcap.caption import Caption

THUMBNAIL_SIDE = 640  # pixels
NO_TEXT = '<em class="ec-quiet">empty caption</em>'


@dataclass(frozen=True)
class Column:
    """The captions of a photo with one of the settings.

    Attributes:
        preset: name of the captioner.
        sampler: name of the sampler.
        captions: captions, best first; empty if there is an error.
        words: words of the best caption.
        key: key of the pictures of these words; see `maps_html`.
        error: why there are no captions.
    """

    preset: str
    sampler: str
    captions: Sequence[Caption] = ()
    words: Sequence[str] = ()
    key: str = ""
    error: str = ""


def photo_card(name: str, data: bytes, columns: Sequence[Column]) -> str:
    """Returns the card of a photo.

    Args:
        name: name of the file.
        data: its contents.
        columns: captions by settings, one or two.

    Raises:
        UnreadablePhoto: the photo cannot be decoded.
    """
    image = load_thumbnail(data, (THUMBNAIL_SIDE, THUMBNAIL_SIDE))
    best = next((column.captions[0].text for column in columns if column.captions), name)
    rows = [
        [name, column.preset, column.sampler, rank, caption.text, caption.score, caption.confidence]
        for column in columns
        for rank, caption in enumerate(column.captions, 1)
    ]
    headed = len({(column.preset, column.sampler) for column in columns}) > 1
    body = "".join(column_html(column, headed or len(columns) > 1) for column in columns)
    return (
        f'<article class="ec-card" data-rows="{html.escape(json.dumps(rows))}">'
        f'<figure class="ec-photo"><div class="ec-frame"><img src="{image_url(image)}" '
        f'width="{image.width}" height="{image.height}" alt="{html.escape(best)}">'
        f'<img class="ec-heat" alt=""></div><figcaption>{html.escape(name)}</figcaption></figure>'
        f'<div class="ec-columns">{body}</div></article>'
    )


def error_card(name: str, reason: str) -> str:
    """Returns the card of a photo that cannot be captioned."""
    return (
        f'<article class="ec-card ec-error" role="alert"><strong>{html.escape(name)}</strong>'
        f"<span>{html.escape(reason)}</span></article>"
    )


def column_html(column: Column, headed: bool) -> str:
    """Returns the captions of one column."""
    heading = f"<h3>{html.escape(f'{column.preset} · {column.sampler}')}</h3>" if headed else ""
    if column.error:
        return (
            f'<section>{heading}<p class="ec-failed" role="alert">{html.escape(column.error)}</p>'
            "</section>"
        )
    best, *others = column.captions
    items = "".join(
        f"<li>{caption_html(caption, html.escape(caption.text) or NO_TEXT)}</li>"
        for caption in others
    )
    rest = f'<ol start="2">{items}</ol>' if items else ""
    return f"<section>{heading}{caption_html(best, words_html(column), first=True)}{rest}</section>"


def words_html(column: Column) -> str:
    """Returns the best caption with its words marked for the pictures of attention."""
    text, marked = column.captions[0].text, ""
    for number, word in enumerate(column.words):
        before, found, after = text.partition(word)
        if found:
            marked += (
                f'{html.escape(before)}<span class="ec-word" data-key="{column.key}" '
                f'data-number="{number}">{html.escape(word)}</span>'
            )
            text = after
    return marked + html.escape(text) or NO_TEXT


def maps_html(key: str, maps: Sequence[tuple[str, str]]) -> str:
    """Returns the pictures of a caption's words, for the script of the page.

    Args:
        key: key of the column.
        maps: each word with the data URL of a picture that covers the photo.
    """
    addresses = html.escape(json.dumps([address for _, address in maps]))
    return f'<i hidden data-maps="{key}" data-addresses="{addresses}"></i>'


def caption_html(caption: Caption, words: str, *, first: bool = False) -> str:
    """Returns a caption with its numbers and a button that copies it."""
    score = f"{caption.score:.2f}".replace("-", "\N{MINUS SIGN}")
    percent = f"{100 * caption.confidence:.0f}"
    cut = "" if caption.is_finished else " · cut at the maximum length"
    return (
        f'<div class="ec-caption{" ec-best" if first else ""}"><p dir="auto">{words}</p>'
        f'<div class="ec-meta"><span class="ec-bar" title="confidence"><i style="width:{percent}%">'
        f"</i></span><span>{percent} % confidence · score {score}{cut}</span>"
        f'<button type="button" class="ec-copy" data-text="{html.escape(caption.text)}" '
        'aria-label="Copy the caption">Copy</button></div></div>'
    )
