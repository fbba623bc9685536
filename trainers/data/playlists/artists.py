"""Artists of a playlist: ranking, fractions of tracks, and masking of names in captions."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence

import numpy as np

NUM_ARTISTS = 10  # artists in the features of a playlist
PLACEHOLDER = re.compile(r"(?<!\w)artist(0|[1-9][0-9]*)(?!\w)", re.IGNORECASE)


def rank_artists(artists: Iterable[str | tuple[str, int]]) -> dict[str, int]:
    """Counts the tracks of each artist.

    Args:
        artists: a name per track, or (name, number of tracks). Names are compared ignoring case and
            repeated spaces; the first spelling is kept.

    Returns:
        Number of tracks by artist, most frequent first, ties in order of first appearance.

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


def artist_fractions(counts: Mapping[str, int]) -> np.ndarray:
    """Computes the fraction of the tracks that each of the ten most frequent artists has.

    Returns:
        (1, 10) float32, descending, padded with zeros.
    """
    total = sum(counts.values())
    fractions = np.zeros((1, NUM_ARTISTS), np.float32)  # (1, 10)
    largest = sorted(counts.values(), reverse=True)[:NUM_ARTISTS]
    fractions[0, : len(largest)] = [count / total for count in largest]
    return fractions


def mask_artists(caption: str, artists: Sequence[str]) -> str:
    """Replaces artist names in a caption by `artist0`, `artist1`, ....

    Names match whole words, ignoring case; longer names match before shorter ones.

    Args:
        caption: any text.
        artists: names in the order of `rank_artists`.

    Raises:
        ValueError: the caption already has a placeholder such as `artist3`.

    >>> mask_artists("The best of Queen", ["Queen", "ABBA"])
    'The best of artist0'
    """
    rest = caption  # matched names are overwritten with null characters
    matches: list[tuple[int, int, int]] = []  # start, end, index of the artist
    for index in sorted(range(len(artists)), key=lambda i: -len(artists[i])):
        name = re.compile(rf"(?<![\w\0]){re.escape(artists[index])}(?![\w\0])", re.IGNORECASE)
        matches += [(*match.span(), index) for match in name.finditer(rest)]
        rest = name.sub(lambda match: "\0" * len(match.group()), rest)
    literal = PLACEHOLDER.search(rest)
    if literal:
        raise ValueError(
            f"Expected a caption without {literal.group()!r}, a placeholder for an artist. "
            f"Received: {caption[:80]!r}"
        )
    pieces, position = [], 0
    for start, end, index in sorted(matches):
        if start and start == position:  # adjacent placeholders would not be word-delimited
            continue
        pieces += [caption[position:start], f"artist{index}"]
        position = end
    return "".join([*pieces, caption[position:]])


def unmask_artists(caption: str, artists: Sequence[str]) -> str:
    """Replaces `artist0`, `artist1`, ... by artist names.

    Inverts `mask_artists` except for the case of names. Placeholders beyond the list are kept.

    >>> unmask_artists("The best of artist0", ["Queen", "ABBA"])
    'The best of Queen'
    """

    def name(match: re.Match[str]) -> str:
        index = int(match.group(1))
        return artists[index] if index < len(artists) else match.group()

    return PLACEHOLDER.sub(name, caption)
