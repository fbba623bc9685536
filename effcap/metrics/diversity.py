"""Diversity of captions, which detects a captioner with the same caption for every photo."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from effcap.metrics.frequencies import DocumentFrequencies
from effcap.metrics.ngrams import MAX_ORDER, HashedCaptions, Tokens, count_ngrams


def distinct_fraction(captions: Sequence[Tokens]) -> float:
    """Returns the number of distinct captions divided by the number of captions."""
    return len({tuple(caption) for caption in captions}) / max(len(captions), 1)


def vocabulary_size(captions: Sequence[Tokens]) -> int:
    """Returns the number of distinct words in the captions."""
    return len({word for caption in captions for word in caption})


def mean_length(captions: Sequence[Tokens]) -> float:
    """Returns the mean number of words per caption."""
    return sum(map(len, captions)) / max(len(captions), 1)


def div_n(captions: Sequence[Sequence[Tokens]], n: int) -> float:
    """Computes Div-n (Shetty et al., 2017): distinct n-grams divided by words, per photo.

    Args:
        captions: several captions of each photo, in tokens.
        n: number of words per n-gram.

    Returns:
        The mean over photos, in 0..1. It decreases with the number of captions per photo.
    """
    return float(np.mean([_div_n(group, n) for group in captions]))


def _div_n(captions: Sequence[Tokens], n: int) -> float:
    hashed = HashedCaptions.from_tokens(captions)
    return len(np.unique(count_ngrams(hashed, n).hashes)) / max(len(hashed.words), 1)


def self_cider(captions: Sequence[Sequence[Tokens]], frequencies: DocumentFrequencies) -> float:
    """Computes Self-CIDEr (Wang and Chan, 2019), the diversity of the captions of a photo.

    With K the matrix of CIDEr (0 to 1, without clipping and length penalty) between the m captions
    of a photo and l its eigenvalues, it is -log_m(max sqrt(l) / sum sqrt(l)): 0 if all captions are
    equal, 1 if they have no common n-grams.

    Args:
        captions: two captions or more of each photo, in tokens.
        frequencies: document frequencies that weight the n-grams.

    Returns:
        The mean over photos, in 0..1.

    Raises:
        ValueError: a photo has fewer than two captions.
    """
    return float(np.mean([_self_cider(group, frequencies) for group in captions]))


def _self_cider(captions: Sequence[Tokens], frequencies: DocumentFrequencies) -> float:
    size = len(captions)  # m
    if size < 2:
        raise ValueError(f"Expected two captions or more per photo. Received: {size}")
    hashed = HashedCaptions.from_tokens(captions)
    kernel = np.zeros((size, size))
    for n in range(1, MAX_ORDER + 1):
        counts = count_ngrams(hashed, n)
        table, columns = np.unique(counts.hashes, return_inverse=True)
        vectors = np.zeros((size, len(table)))  # (m, G)
        vectors[counts.rows, columns] = counts.counts * frequencies.idf(counts.hashes, n)
        norms = np.linalg.norm(vectors, axis=1, keepdims=True)  # (m, 1)
        vectors /= np.where(norms > 0, norms, 1)
        kernel += vectors @ vectors.T / MAX_ORDER  # (m, G) (G, m) -> (m, m)
    roots = np.sqrt(np.maximum(np.linalg.eigvalsh(kernel), 0))  # (m,)
    if not roots.any():  # all captions are empty
        return 0.0
    return float(np.log(roots.sum() / roots.max()) / np.log(size))
