"""Draws the attention of a playlist captioner to tracks, tags and artists as bars."""

from __future__ import annotations

import html
from collections.abc import Mapping, Sequence
from os import PathLike

from PIL import Image

from effcap.attention.drawing import (
    QUIET,
    Writer,
    save_pictures,
    text_lines,
)
from effcap.tools.captioning.playlist_attention import MAX_ROWS, RowAttention
from effcap.utils.html_page import html_page

Ranking = Mapping[str, Sequence[RowAttention]]

WIDTH, MARGIN, ROW, LABEL = 860, 24, 27, 330  # pixels
BAR = "#c8552b"
NOTE = (
    "Cross-attention, mean of all layers, heads and tokens; with each row, the token at which it "
    "is highest. Not an explanation: it shows what the text read, not why it was said."
)


def draw_bars(caption: str, attention: Ranking, max_rows: int = MAX_ROWS) -> Image.Image:
    """Draws the attention to each row of each modality as a bar.

    Args:
        caption: caption of the playlist.
        attention: rows by modality, highest first, as `rank_rows` returns them.
        max_rows: maximum number of rows of a modality; the others share one bar. Default 10.
    """
    title = text_lines(caption, 20, WIDTH - 2 * MARGIN)
    note = text_lines(NOTE, 13, WIDTH - 2 * MARGIN)
    bars = {modality: _bars(rows, max_rows) for modality, rows in attention.items()}
    num_rows = sum(max(1, len(rows)) for rows in bars.values())
    height = 2 * MARGIN + 28 * len(title) + ROW * num_rows + 48 * len(bars) + 19 * len(note) + 16
    picture = Image.new("RGB", (WIDTH, height), "white")
    writer = Writer(picture)
    top = MARGIN
    for line in title:
        writer.write((MARGIN, top), line, 20)
        top += 28
    longest = max((weight for rows in bars.values() for _, weight, _ in rows), default=1.0)
    room = WIDTH - 2 * MARGIN - LABEL - 190
    for modality, rows in bars.items():
        writer.write((MARGIN, top + 16), modality, 17)
        top += 46
        if not rows:
            writer.write((MARGIN, top), "no features", 14, QUIET)
            top += ROW
        for label, weight, word in rows:
            writer.write((MARGIN, top), label, 14, width=LABEL - 12)
            left, length = MARGIN + LABEL, round(room * weight / longest)
            writer.draw.rectangle((left, top + 2, left + max(length, 1), top + 17), BAR)
            number = f"{weight:.1%}" + (f"  {word}" if word else "")
            writer.write((left + length + 10, top), number, 14, QUIET)
            top += ROW
        top += 2
    for i, line in enumerate(note):
        writer.write((MARGIN, top + 16 + 19 * i), line, 13, QUIET)
    return picture


def save_bars(path: str | PathLike, playlists: Mapping[str, Ranking]) -> None:
    """Writes the attention to several playlists as a picture, `.png`, or a page, `.html`.

    Args:
        path: file to write; missing folders are created.
        playlists: attention by heading.

    Raises:
        ValueError: the suffix is another, or there is no playlist.
        OSError: the file cannot be written.
    """
    save_pictures(
        path,
        lambda: [draw_bars(heading, attention) for heading, attention in playlists.items()],
        lambda: _page(playlists),
    )


def _bars(rows: Sequence[RowAttention], max_rows: int) -> list[tuple[str, float, str]]:
    """Returns the label, the weight and the word of each bar, with one bar for further rows."""
    bars = [(row.row, row.weight, row.word) for row in rows[:max_rows]]
    rest = rows[max_rows:]
    return bars + [(f"{len(rest)} others", sum(row.weight for row in rest), "")] * bool(rest)


def _page(playlists: Mapping[str, Ranking]) -> str:
    """Returns a page with the bars of each playlist, without scripts."""
    sections = []
    for heading, attention in playlists.items():
        body = [f"<h2>{html.escape(heading)}</h2>"]
        longest = max((row.weight for rows in attention.values() for row in rows), default=1.0)
        for modality, rows in attention.items():
            body.append(f"<h3>{html.escape(modality)}</h3>")
            body += [
                f'<div class="row"><span>{html.escape(label)}</span>'
                f'<i style="width: {100 * min(weight / (longest or 1), 1):.1f}%"></i>'
                f"<small>{weight:.1%} {html.escape(word)}</small></div>"
                for label, weight, word in _bars(rows, MAX_ROWS)
            ] or ["<p>no features</p>"]
        sections.append(f"<section>{''.join(body)}</section>")
    return html_page("Attention to tracks, tags and artists", NOTE, "\n".join(sections), STYLE)


STYLE = """\
body { max-width: 900px; }
section { margin: 1.5rem 0; padding: 1.2rem 1.4rem; background: var(--card);
  border: 1px solid var(--line); border-radius: 12px; }
h2 { font-size: 1.1rem; }
h3 { margin-top: .8rem; font-size: .9rem; }
p, small { color: var(--quiet); font-size: .8125rem; }
.row { display: grid; grid-template-columns: 14rem 1fr 9rem; gap: .7rem; align-items: center; }
.row span { overflow: hidden; text-overflow: ellipsis; white-space: nowrap; font-size: .875rem; }
.row i { height: .9rem; min-width: 1px; background: #c8552b; border-radius: 2px; }
"""
