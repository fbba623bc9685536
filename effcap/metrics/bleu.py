"""BLEU-1 to BLEU-4."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from effcap.metrics.ngrams import (
    MAX_ORDER,
    HashedCaptions,
    NgramIndex,
    Tokens,
    check_paired,
    count_ngrams,
    flatten,
)

TINY, SMALL = 1e-15, 1e-9  # pycocoevalcap's, against division by zero


def bleu(candidates: Sequence[Tokens], references: Sequence[Sequence[Tokens]]) -> np.ndarray:
    """Computes BLEU-1 to BLEU-4 of a corpus (Papineni et al., 2002), as pycocoevalcap does.

    BLEU-n is the geometric mean of the precisions of 1- to n-grams over all captions, with the
    count of an n-gram clipped to its maximum among the references. It is multiplied by exp(1 - r/c)
    if the total length c of the captions is less than the total length r of their closest
    references. The closest reference is the one with the closest length, the shorter of two
    equally close ones.

    Args:
        candidates: N captions in tokens.
        references: references of each caption, in tokens.

    Returns:
        (4,), each in 0..1.

    Raises:
        ValueError: there are no captions, or a caption has no references.
        TypeError: captions are not tokenized.
    """
    check_paired(candidates, references)
    captions = HashedCaptions.from_tokens(candidates)
    targets, images = flatten(references)
    closest = _closest_lengths(captions.lengths, targets.lengths, images)  # (N,)
    precision, scores = 1.0, np.empty(MAX_ORDER)
    for n in range(1, MAX_ORDER + 1):
        total = np.maximum(captions.lengths - n + 1, 0).sum()
        matched = _clipped_matches(captions, targets, images, n)
        precision *= (matched + TINY) / (total + SMALL)
        scores[n - 1] = precision ** (1 / n)
    ratio = (captions.lengths.sum() + TINY) / (closest.sum() + SMALL)
    return scores * np.exp(min(0.0, 1 - 1 / ratio))


def _closest_lengths(lengths: np.ndarray, targets: np.ndarray, images: np.ndarray) -> np.ndarray:
    """Returns the length of the reference closest in length to each caption, (N,)."""
    order = np.lexsort((targets, abs(targets - lengths[images]), images))
    _, first = np.unique(images[order], return_index=True)
    return targets[order][first]


def _clipped_matches(
    captions: HashedCaptions, targets: HashedCaptions, images: np.ndarray, n: int
) -> int:
    """Counts n-grams of the captions, each at most as often as in a reference of its image."""
    counts, expected = count_ngrams(captions, n), count_ngrams(targets, n)
    index = NgramIndex(images[expected.rows], expected.hashes)
    starts, ends = index.find(counts.rows, counts.hashes)
    padded = np.append(expected.counts[index.order], 0)  # an end may be one past the last entry
    spans = np.stack((starts, ends), axis=1).ravel()  # (2 * G,) maxima are at even indices
    most = np.where(starts < ends, np.maximum.reduceat(padded, spans)[::2], 0)  # (G,)
    return int(np.minimum(counts.counts, most).sum())
