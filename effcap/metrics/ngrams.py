"""N-grams of many captions at once, as NumPy arrays.

A word is known by a 64-bit hash of its text, an n-gram by a hash of its words: tables of n-grams
are sorted arrays of integers, small in memory and on disk. Among a million n-grams two share a hash
with a probability of 3e-8.

Letters in shapes: N captions, W words of all captions, G n-grams.
"""

from __future__ import annotations

from collections.abc import Hashable, Iterable, Sequence
from dataclasses import dataclass
from hashlib import blake2b
from itertools import chain

import numpy as np

Tokens = Sequence[Hashable]  # words, or token ids; those of equal text are equal
ORDERS = 4  # the longest n-grams of BLEU and CIDEr
_MIX = np.uint64(0x9E3779B97F4A7C15)  # odd, so that multiplying by it loses nothing


@dataclass(frozen=True)
class Captions:
    """Captions as hashes of their words.

    Attributes:
        words: (W,) uint64, one caption after another.
        lengths: (N,) words per caption.
    """

    words: np.ndarray
    lengths: np.ndarray

    @classmethod
    def of(cls, captions: Iterable[Tokens]) -> Captions:
        """From captions in tokens; TypeError for a text, which has to be tokenized first."""
        rows = [caption.tolist() if isinstance(caption, np.ndarray) else caption
                for caption in captions]  # fmt: skip
        for row in rows:
            if isinstance(row, str):
                raise TypeError(
                    "Expected captions in tokens, as tokenize() gives them. Received the text: "
                    f"{row!r}"
                )
        flat = list(chain.from_iterable(rows))
        hashes = {word: _hash(word) for word in set(flat)}
        words = np.fromiter((hashes[word] for word in flat), np.uint64, len(flat))  # (W,)
        return cls(words, np.fromiter(map(len, rows), np.int64, len(rows)))

    def __len__(self) -> int:
        return len(self.lengths)


@dataclass(frozen=True)
class Counts:
    """The distinct n-grams of each caption, ordered by caption and hash.

    Attributes:
        rows: (G,) which caption.
        hashes: (G,) uint64, which n-gram.
        counts: (G,) how often it is there.
    """

    rows: np.ndarray
    hashes: np.ndarray
    counts: np.ndarray


def count_ngrams(captions: Captions, n: int) -> Counts:
    """The n-grams of `n` words in each caption."""
    rows = np.repeat(np.arange(len(captions)), captions.lengths)  # (W,)
    starts = max(len(rows) - n + 1, 0)
    hashes = captions.words[:starts].copy()  # (W-n+1,)
    for i in range(1, n):
        hashes = hashes * _MIX + captions.words[i : i + starts]
    within = rows[:starts] == rows[n - 1 :][:starts]  # not across the end of a caption
    rows, hashes = rows[:starts][within], hashes[within]
    order = np.lexsort((hashes, rows))
    rows, hashes = rows[order], hashes[order]
    first = np.flatnonzero(_differs(rows) | _differs(hashes))  # (G,)
    counts = np.diff(np.append(first, len(rows)))
    return Counts(rows[first], hashes[first], counts)


class Places:
    """Where the n-grams of groups of captions stand in sorted arrays.

    Args:
        groups: (G,) the group that an n-gram is counted for, such as the photo.
        hashes: (G,) which n-gram.

    Attributes:
        order: (G,) sorts both by group and n-gram.
    """

    def __init__(self, groups: np.ndarray, hashes: np.ndarray):
        self.table = np.unique(hashes)
        keys = groups * len(self.table) + np.searchsorted(self.table, hashes)  # (G,)
        self.order = np.argsort(keys, kind="stable")
        self.keys = keys[self.order]

    def find(self, groups: np.ndarray, hashes: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """(starts, ends) in sorted order of each n-gram in its group; equal where it is not."""
        at = np.searchsorted(self.table, hashes)
        at[at == len(self.table)] = 0
        known = self.table[at] == hashes if len(self.table) else np.zeros(len(hashes), bool)
        keys = groups * len(self.table) + at
        starts = np.searchsorted(self.keys, keys)
        ends = np.where(known, np.searchsorted(self.keys, keys, side="right"), starts)
        return starts, ends


def _differs(values: np.ndarray) -> np.ndarray:
    """Whether each value differs from the one before it; the first does."""
    differs = np.ones(len(values), bool)
    np.not_equal(values[1:], values[:-1], out=differs[1:])
    return differs


def _hash(word: Hashable) -> int:
    text = str(word).encode(errors="surrogatepass")
    return int.from_bytes(blake2b(text, digest_size=8).digest(), "little")


def flatten(references: Sequence[Sequence[Tokens]]) -> tuple[Captions, np.ndarray]:
    """All references as (captions, the image of each); ValueError for an image without any."""
    sizes = np.fromiter(map(len, references), np.int64, len(references))
    if not sizes.all():
        raise ValueError(
            "Expected at least one reference per image. Received: none for image "
            f"{int(np.argmin(sizes))}"
        )
    return Captions.of(chain.from_iterable(references)), np.repeat(np.arange(len(sizes)), sizes)


def check_paired(candidates: Sequence, references: Sequence) -> None:
    """ValueError unless there are references for every candidate, and at least one of them."""
    if not len(candidates) or len(candidates) != len(references):
        raise ValueError(
            "Expected candidates, and the references of each. Received: "
            f"{len(candidates)} candidates and references of {len(references)} images"
        )
