"""How varied captions are: a captioner that has collapsed says the same of every photo."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from effcap.metrics.frequencies import DocumentFrequencies
from effcap.metrics.ngrams import ORDERS, Captions, Tokens, count_ngrams


def distinct_share(captions: Sequence[Tokens]) -> float:
    """The share of captions that differ: number of different ones over number of captions."""
    return len({tuple(caption) for caption in captions}) / max(len(captions), 1)


def vocabulary(captions: Sequence[Tokens]) -> int:
    """How many different words the captions use."""
    return len({word for caption in captions for word in caption})


def mean_length(captions: Sequence[Tokens]) -> float:
    """Words per caption."""
    return sum(map(len, captions)) / max(len(captions), 1)


def div_n(captions: Sequence[Sequence[Tokens]], n: int) -> float:
    """Div-n (Shetty et al. 2017): different n-grams over words, in all captions of a photo.

    Args:
        captions: of each photo, several captions in tokens.
        n: words per n-gram.

    Returns:
        The mean over photos, from 0 to 1. It falls as there are more captions per photo.
    """
    return float(np.mean([_div_n(group, n) for group in captions]))


def _div_n(captions: Sequence[Tokens], n: int) -> float:
    found = Captions.of(captions)
    return len(np.unique(count_ngrams(found, n).hashes)) / max(len(found.words), 1)


def self_cider(captions: Sequence[Sequence[Tokens]], frequencies: DocumentFrequencies) -> float:
    """Self-CIDEr (Wang and Chan 2019): how many different things the captions of a photo say.

    With K the matrix of CIDEr (0 to 1, without clipping and length penalty) between the captions of
    a photo and l its eigenvalues, -log_m(max sqrt(l) / sum sqrt(l)) for m captions: 0 where all
    are the same, 1 where none has an n-gram of another.

    Args:
        captions: of each photo, two captions or more in tokens.
        frequencies: that n-grams are weighted by.

    Returns:
        The mean over photos, from 0 to 1.

    Raises:
        ValueError: for a photo with fewer than two captions.
    """
    return float(np.mean([_self_cider(group, frequencies) for group in captions]))


def _self_cider(captions: Sequence[Tokens], frequencies: DocumentFrequencies) -> float:
    size = len(captions)
    if size < 2:
        raise ValueError(f"Expected two captions or more per photo. Received: {size}")
    found = Captions.of(captions)
    kernel = np.zeros((size, size))
    for n in range(1, ORDERS + 1):
        counts = count_ngrams(found, n)
        table, places = np.unique(counts.hashes, return_inverse=True)
        vectors = np.zeros((size, len(table)))  # (m,G)
        vectors[counts.rows, places] = counts.counts * frequencies.idf(counts.hashes, n)
        norms = np.linalg.norm(vectors, axis=1, keepdims=True)
        vectors /= np.where(norms > 0, norms, 1)
        kernel += vectors @ vectors.T / ORDERS  # (m,G) (G,m) -> (m,m)
    roots = np.sqrt(np.maximum(np.linalg.eigvalsh(kernel), 0))
    if not roots.any():  # no words at all
        return 0.0
    return float(np.log(roots.sum() / roots.max()) / np.log(size))
