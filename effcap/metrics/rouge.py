"""ROUGE-L."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence

import numpy as np

from effcap.metrics.ngrams import Tokens, check_paired

BETA = 1.2  # weight of recall relative to precision, pycocoevalcap's


def rouge_l(candidates: Sequence[Tokens], references: Sequence[Sequence[Tokens]]) -> np.ndarray:
    """Computes ROUGE-L of each caption (Lin, 2004), as pycocoevalcap does.

    With P the length of the longest common subsequence divided by the caption's length and R the
    same divided by the reference's length, each the maximum over the references, it is
    (1 + b^2) P R / (R + b^2 P), b = 1.2. Empty captions score 0.

    Args:
        candidates: N captions in tokens.
        references: references of each caption, in tokens.

    Returns:
        (N,), each in 0..1; their mean is the score of the corpus.

    Raises:
        ValueError: there are no captions, or a caption has no references.
        TypeError: captions are not tokenized.
    """
    check_paired(candidates, references)
    return np.array([_score(*pair) for pair in zip(candidates, references, strict=True)])


def _score(candidate: Tokens, references: Sequence[Tokens]) -> float:
    if not len(references):
        raise ValueError("Expected at least one reference per image. Received: none")
    for caption in (candidate, *references):
        if isinstance(caption, str):
            raise TypeError(
                f"Expected captions in tokens, as returned by tokenize(). Received: {caption!r}"
            )
    lengths = [_common_length(candidate, reference) for reference in references]
    precision = max(lengths) / max(len(candidate), 1)
    recall = max(
        length / max(len(reference), 1)
        for length, reference in zip(lengths, references, strict=True)
    )
    if not precision:
        return 0.0
    return (1 + BETA**2) * precision * recall / (recall + BETA**2 * precision)


def _common_length(first: Tokens, second: Tokens) -> int:
    """Computes the length of the longest common subsequence.

    One row of the dynamic program at a time, as the bits of an integer (Hyyrö, 2004).
    """
    positions: defaultdict = defaultdict(int)  # bits of the positions of each word
    for i, word in enumerate(second):
        positions[word] |= 1 << i
    all_bits = (1 << len(second)) - 1
    row = all_bits
    for word in first:
        matched = row & positions[word]
        row = ((row + matched) | (row - matched)) & all_bits
    return len(second) - row.bit_count()
