"""Artists of a playlist: their order, their shares, and their names out of captions and back."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence

import numpy as np

SHARES = 10  # artists whose shares are told
TOKEN = re.compile(r"(?<!\w)artist(0|[1-9][0-9]*)(?!\w)", re.IGNORECASE)


def rank_artists(artists: Iterable[str | tuple[str, int]]) -> dict[str, int]:
    """How often each artist occurs, the most frequent first; ties by first appearance.

    Args:
        artists: a name per track, or (name, number of tracks). Spaces around and within names do
            not count, nor does case: the spelling that comes first is kept.

    >>> rank_artists(["Queen", "ABBA", "queen"])
    {'Queen': 2, 'ABBA': 1}
    """
    names: dict[str, str] = {}
    counts: dict[str, int] = {}
    for entry in artists:
        name, count = (entry, 1) if isinstance(entry, str) else entry
        name = " ".join(name.split())
        if name:
            name = names.setdefault(name.casefold(), name)
            counts[name] = counts.get(name, 0) + count
    return dict(sorted(counts.items(), key=lambda item: -item[1]))


def artist_shares(counts: Mapping[str, int]) -> np.ndarray:
    """(1, 10) float32: the shares of tracks of the ten most frequent artists, descending; zeros
    where there are fewer artists."""
    total = sum(counts.values())
    shares = np.zeros((1, SHARES), np.float32)
    most = sorted(counts.values(), reverse=True)[:SHARES]
    shares[0, : len(most)] = [count / total for count in most]
    return shares


def mask_artists(caption: str, artists: Sequence[str]) -> str:
    """The caption with `artist0`, `artist1`, ... in place of the artists' names.

    Names are found in any case, where words begin and end; longer names before shorter ones.

    Args:
        caption: a text.
        artists: names in order, as of `rank_artists`.

    Raises:
        ValueError: for a caption in which a word such as `artist3` stands already.

    >>> mask_artists("The best of Queen", ["Queen", "ABBA"])
    'The best of artist0'
    """
    left = caption  # with null characters where a name was found
    found: list[tuple[int, int, int]] = []  # start, end, number of the artist
    for number in sorted(range(len(artists)), key=lambda i: -len(artists[i])):
        name = re.compile(rf"(?<![\w\0]){re.escape(artists[number])}(?![\w\0])", re.IGNORECASE)
        found += [(*match.span(), number) for match in name.finditer(left)]
        left = name.sub(lambda match: "\0" * len(match.group()), left)
    literal = TOKEN.search(left)
    if literal:
        raise ValueError(
            f"Expected a caption without {literal.group()!r}, which stands for an artist. "
            f"Received: {caption[:80]!r}"
        )
    parts, place = [], 0
    for start, end, number in sorted(found):
        if start and start == place:  # two tokens in one word would be none
            continue
        parts += [caption[place:start], f"artist{number}"]
        place = end
    return "".join([*parts, caption[place:]])


def unmask_artists(caption: str, artists: Sequence[str]) -> str:
    """The caption with names in place of `artist0`, `artist1`, ...; the inverse of `mask_artists`,
    but for the case of names. Numbers that no artist has stay as they are.

    >>> unmask_artists("The best of artist0", ["Queen", "ABBA"])
    'The best of Queen'
    """

    def name(match: re.Match) -> str:
        number = int(match.group(1))
        return artists[number] if number < len(artists) else match.group()

    return TOKEN.sub(name, caption)
