"""The captions of a run as HTML: those of the same photos by epoch, and the worst ones."""

from __future__ import annotations

import html
from collections.abc import Mapping, Sequence
from typing import Any

from effcap.trainers.reports.photo_cards import (
    caption_html,
    caption_rows,
    card,
    picture,
    placeholder,
)
from effcap.trainers.reports.run_history import RunHistory

MAX_SHOWN = 6  # captions of a photo that are not folded away


def photo_html(run: RunHistory, photo: Mapping[str, Any], caption: str) -> str:
    """Returns the HTML of a photo in the notes of a run; "" if there is no photo to show.

    Args:
        run: the run.
        photo: entry of the photo.
        caption: text for readers who do not see the photo.
    """
    if "unreadable" in photo:
        return placeholder(photo["name"], photo["unreadable"])
    jpeg = run.thumbnail(photo)
    if jpeg is not None:
        return picture(jpeg, caption)
    if "thumbnail" in photo:
        return placeholder(photo["name"], "its thumbnail in the run folder is missing or damaged")
    return ""


def caption_history(run: RunHistory) -> str:
    """Returns the HTML of each photo with its captions by epoch, the newest first."""
    photos = run.notes.get("photos", ())
    epochs = [(number, captions) for number, captions in run.captions() if captions]
    if not epochs:
        return ""
    articles = []
    for i, photo in enumerate(photos):
        captions = [(number, texts[i]) for number, texts in epochs if i < len(texts)]
        if captions:
            articles.append(_article(run, photo, captions))
    hint = f"Of the first examples in the {run.notes.get('split', '')} data, the newest first."
    return (
        f'<p class="hint">{html.escape(hint)}</p><div class="histories">{"".join(articles)}</div>'
    )


def _article(run: RunHistory, photo: Mapping[str, Any], captions: Sequence[tuple[int, str]]) -> str:
    """Returns the HTML of a photo with its (epoch, caption) pairs."""
    spans = _spans(captions)[::-1]
    best = run.best.epoch if run.best and run.num_epochs > 1 else None
    items = [_item(first, last, text, best) for first, last, text in spans]
    count = MAX_SHOWN if len(items) > MAX_SHOWN + 1 else len(items)
    shown = f"<ol>{''.join(items[:count])}</ol>"
    if items[count:]:
        shown += (
            f"<details><summary>epochs {spans[-1][0]}–{spans[count][1]}</summary>"
            f"<ol>{''.join(items[count:])}</ol></details>"
        )
    image = photo_html(run, photo, spans[0][2])
    name = photo["name"]
    if photo.get("prefix"):
        name += f" · after “{photo['prefix']}”"
    return (
        f'<article class="history">{image}<div class="words">'
        f'<p class="name">{html.escape(name)}</p>{shown}{references_html(photo)}</div></article>'
    )


def references_html(photo: Mapping[str, Any]) -> str:
    """Returns the HTML of the references of a photo."""
    references = photo.get("references") or []
    if not references:
        return ""
    lines = "".join(f'<li dir="auto">{caption_html(text)}</li>' for text in references)
    count = f"{len(references)} reference" + ("" if len(references) == 1 else "s")
    return f'<details class="references"><summary>{count}</summary><ul>{lines}</ul></details>'


def _spans(captions: Sequence[tuple[int, str]]) -> list[tuple[int, int, str]]:
    """Joins epochs with the same caption to (first epoch, last epoch, caption)."""
    spans: list[tuple[int, int, str]] = []
    for number, text in captions:
        if spans and spans[-1][2] == text:
            spans[-1] = (spans[-1][0], number, text)
        else:
            spans.append((number, number, text))
    return spans


def _item(first: int, last: int, text: str, best: int | None) -> str:
    """Returns the HTML of a caption with its epochs."""
    epochs = f"{first}" if first == last else f"{first}–{last}"
    is_best = best is not None and first <= best <= last
    star = '<b title="the best epoch">★</b>' if is_best else ""
    return (
        f'<li><span class="epoch">{epochs}{star}</span>'
        f'<span class="text" dir="auto">{caption_html(text)}</span></li>'
    )


def worst_captions(run: RunHistory) -> str:
    """Returns the HTML of the captions with the lowest CIDEr in the best epoch."""
    worst = run.notes.get("worst")
    if not worst:
        return ""
    cards = [
        card(
            photo_html(run, photo, photo["caption"]),
            photo["name"],
            caption_rows("caption and its CIDEr", [(photo["caption"], photo["cider"])])
            + caption_rows("references", [(text, None) for text in photo["references"]]),
        )
        for photo in worst["photos"]
    ]
    note = f"Lowest CIDEr of {worst['num_photos']:,} validation captions in epoch {worst['epoch']}."
    return f'<p class="hint">{note}</p><div class="cards">{"".join(cards)}</div>'
