"""ROUGE-L: the longest sequence of words, gaps allowed, that a caption shares with a reference."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence

import numpy as np

from effcap.metrics.ngrams import Tokens, check_paired

BETA = 1.2  # how much more recall counts than precision, as pycocoevalcap has it


def rouge_l(candidates: Sequence[Tokens], references: Sequence[Sequence[Tokens]]) -> np.ndarray:
    """ROUGE-L of each caption (Lin 2004), as pycocoevalcap computes it.

    With P the longest common subsequence over the caption's length and R that over the reference's,
    each the highest among the references: (1 + b^2) P R / (R + b^2 P), b = 1.2. A caption without
    words has 0.

    Args:
        candidates: N captions in tokens.
        references: those of each.

    Returns:
        (N,), each from 0 to 1; their mean is the score of the corpus.

    Raises:
        ValueError: without captions, or without references for each.
        TypeError: for captions that are not tokenized.
    """
    check_paired(candidates, references)
    return np.array([_score(*pair) for pair in zip(candidates, references, strict=True)])


def _score(candidate: Tokens, references: Sequence[Tokens]) -> float:
    if not len(references):
        raise ValueError("Expected at least one reference per image. Received: none")
    for caption in (candidate, *references):
        if isinstance(caption, str):
            raise TypeError(f"Expected captions in tokens. Received the text: {caption!r}")
    shared = [_common(candidate, reference) for reference in references]
    precision = max(shared) / max(len(candidate), 1)
    recall = max(
        length / max(len(reference), 1)
        for length, reference in zip(shared, references, strict=True)
    )
    if not precision:
        return 0.0
    return (1 + BETA**2) * precision * recall / (recall + BETA**2 * precision)


def _common(first: Tokens, second: Tokens) -> int:
    """Length of the longest common subsequence.

    A row of the usual table at a time, its steps as the bits of an integer (Hyyrö 2004).
    """
    places: defaultdict = defaultdict(int)
    for i, word in enumerate(second):
        places[word] |= 1 << i
    everywhere = (1 << len(second)) - 1
    row = everywhere
    for word in first:
        matched = row & places[word]
        row = ((row + matched) | (row - matched)) & everywhere
    return len(second) - row.bit_count()
