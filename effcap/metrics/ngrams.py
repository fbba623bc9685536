"""Counts the n-grams of many captions at once, in NumPy arrays.

Words are represented by 64-bit hashes of their text, n-grams by hashes of their words: tables of
n-grams are sorted arrays of integers, small in memory and on disk. Among a million n-grams two have
equal hashes with a probability of 3e-8.

Letters in shapes: N captions, W words of all captions, G n-grams.
"""

from __future__ import annotations

from collections.abc import Hashable, Iterable, Sequence, Sized
from dataclasses import dataclass
from hashlib import blake2b
from itertools import chain

import numpy as np

Tokens = Sequence[Hashable]  # words or token ids; tokens of equal text are equal
MAX_ORDER = 4  # size of the longest n-grams of BLEU and CIDEr
_MULTIPLIER = np.uint64(0x9E3779B97F4A7C15)  # odd: multiplication by it is invertible


@dataclass(frozen=True)
class HashedCaptions:
    """Captions as hashes of their words.

    Attributes:
        words: (W,) uint64, hashes of all words, caption after caption.
        lengths: (N,), number of words per caption.
    """

    words: np.ndarray
    lengths: np.ndarray

    @classmethod
    def from_tokens(cls, captions: Iterable[Tokens]) -> HashedCaptions:
        """Hashes tokenized captions.

        Raises:
            TypeError: a caption is a str, which must be tokenized first.
        """
        rows = [caption.tolist() if isinstance(caption, np.ndarray) else caption
                for caption in captions]  # fmt: skip
        for row in rows:
            if isinstance(row, str):
                raise TypeError(
                    f"Expected captions in tokens, as returned by tokenize(). Received: {row!r}"
                )
        flat = list(chain.from_iterable(rows))
        hashes = {word: _hash(word) for word in set(flat)}
        words = np.fromiter((hashes[word] for word in flat), np.uint64, len(flat))  # (W,)
        return cls(words, np.fromiter(map(len, rows), np.int64, len(rows)))

    def __len__(self) -> int:
        return len(self.lengths)


@dataclass(frozen=True)
class NgramCounts:
    """Counts of the distinct n-grams of each caption, ordered by caption and hash.

    Attributes:
        rows: (G,), index of the caption.
        hashes: (G,) uint64, hash of the n-gram.
        counts: (G,), number of occurrences in the caption.
    """

    rows: np.ndarray
    hashes: np.ndarray
    counts: np.ndarray


def count_ngrams(captions: HashedCaptions, n: int) -> NgramCounts:
    """Counts the n-grams of `n` words in each caption."""
    rows = np.repeat(np.arange(len(captions)), captions.lengths)  # (W,)
    starts = max(len(rows) - n + 1, 0)
    hashes = captions.words[:starts].copy()  # (W - n + 1,)
    for i in range(1, n):
        hashes = hashes * _MULTIPLIER + captions.words[i : i + starts]
    within = rows[:starts] == rows[n - 1 :][:starts]  # False across the end of a caption
    rows, hashes = rows[:starts][within], hashes[within]
    order = np.lexsort((hashes, rows))
    rows, hashes = rows[order], hashes[order]
    first = np.flatnonzero(_differs(rows) | _differs(hashes))  # (G,)
    counts = np.diff(np.append(first, len(rows)))
    return NgramCounts(rows[first], hashes[first], counts)


class NgramIndex:
    """Index of n-grams by group, such as a photo.

    Args:
        groups: (G,), the group of each n-gram.
        hashes: (G,), hash of each n-gram.

    Attributes:
        order: (G,), permutation that sorts by group and n-gram.
    """

    def __init__(self, groups: np.ndarray, hashes: np.ndarray):
        self.table = np.unique(hashes)
        keys = groups * len(self.table) + np.searchsorted(self.table, hashes)  # (G,)
        self.order = np.argsort(keys, kind="stable")
        self.keys = keys[self.order]

    def find(self, groups: np.ndarray, hashes: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Returns (starts, ends) in sorted order of each n-gram in its group, equal if absent."""
        indices = np.searchsorted(self.table, hashes)
        indices[indices == len(self.table)] = 0
        known = self.table[indices] == hashes if len(self.table) else np.zeros(len(hashes), bool)
        keys = groups * len(self.table) + indices
        starts = np.searchsorted(self.keys, keys)
        ends = np.where(known, np.searchsorted(self.keys, keys, side="right"), starts)
        return starts, ends


def flatten(references: Sequence[Sequence[Tokens]]) -> tuple[HashedCaptions, np.ndarray]:
    """Returns all references in one sequence, and the index of each one's image.

    Raises:
        ValueError: an image has no references.
        TypeError: references are not tokenized.
    """
    sizes = np.fromiter(map(len, references), np.int64, len(references))
    if not sizes.all():
        raise ValueError(
            "Expected at least one reference per image. Received: none for image "
            f"{int(np.argmin(sizes))}"
        )
    captions = HashedCaptions.from_tokens(chain.from_iterable(references))
    return captions, np.repeat(np.arange(len(sizes)), sizes)


def check_paired(candidates: Sized, references: Sized) -> None:
    """Checks that there are candidates, and references for each.

    Raises:
        ValueError: there are none, or their numbers differ.
    """
    if not len(candidates) or len(candidates) != len(references):
        raise ValueError(
            "Expected candidates, and the references of each. Received: "
            f"{len(candidates)} candidates and references of {len(references)} images"
        )


def _differs(values: np.ndarray) -> np.ndarray:
    """Returns whether each value differs from the one before it; True for the first."""
    differs = np.ones(len(values), bool)
    np.not_equal(values[1:], values[:-1], out=differs[1:])
    return differs


def _hash(word: Hashable) -> int:
    text = str(word).encode(errors="surrogatepass")
    return int.from_bytes(blake2b(text, digest_size=8).digest(), "little")
