"""BLEU: the share of a caption's word sequences that its references have, too."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from effcap.metrics.ngrams import (
    ORDERS,
    Captions,
    Places,
    Tokens,
    check_paired,
    count_ngrams,
    flatten,
)

TINY, SMALL = 1e-15, 1e-9  # of pycocoevalcap, against division by zero


def bleu(candidates: Sequence[Tokens], references: Sequence[Sequence[Tokens]]) -> np.ndarray:
    """BLEU-1 to BLEU-4 of a corpus (Papineni et al. 2002), as pycocoevalcap computes it.

    BLEU-n is the geometric mean of the precisions of 1- to n-grams over all captions, each n-gram
    counted at most as often as in the reference that has it most often, times
    exp(1 - r/c) where the captions, c words long together, are shorter than the references. For
    each caption that reference counts whose length is closest, of two equally close the shorter.

    Args:
        candidates: N captions in tokens.
        references: those of each.

    Returns:
        (4,), each from 0 to 1.

    Raises:
        ValueError: without captions, or without references for each.
        TypeError: for captions that are not tokenized.
    """
    check_paired(candidates, references)
    captions = Captions.of(candidates)
    targets, images = flatten(references)
    closest = _closest_lengths(captions.lengths, targets.lengths, images)
    precision, scores = 1.0, np.empty(ORDERS)
    for n in range(1, ORDERS + 1):
        guessed = np.maximum(captions.lengths - n + 1, 0).sum()
        correct = _clipped_matches(captions, targets, images, n)
        precision *= (correct + TINY) / (guessed + SMALL)
        scores[n - 1] = precision ** (1 / n)
    ratio = (captions.lengths.sum() + TINY) / (closest.sum() + SMALL)
    return scores * np.exp(min(0.0, 1 - 1 / ratio))


def _closest_lengths(lengths: np.ndarray, targets: np.ndarray, images: np.ndarray) -> np.ndarray:
    """(N,) length of the reference closest in length to each caption."""
    order = np.lexsort((targets, abs(targets - lengths[images]), images))
    _, first = np.unique(images[order], return_index=True)
    return targets[order][first]


def _clipped_matches(captions: Captions, targets: Captions, images: np.ndarray, n: int) -> int:
    """The n-grams of the captions that references of their images have as often."""
    counted, expected = count_ngrams(captions, n), count_ngrams(targets, n)
    places = Places(images[expected.rows], expected.hashes)
    starts, ends = places.find(counted.rows, counted.hashes)
    padded = np.append(expected.counts[places.order], 0)  # so that an end may be the last place
    spans = np.stack((starts, ends), axis=1).ravel()  # (2G,) reduceat answers at even places
    most = np.where(starts < ends, np.maximum.reduceat(padded, spans)[::2], 0)  # (G,)
    return int(np.minimum(counted.counts, most).sum())
