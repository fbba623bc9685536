"""Random captions, and reference metrics written directly from their formulas."""

from __future__ import annotations

import math
from collections import Counter

import numpy as np

WORDS = ("a", "dog", "cat", "runs", "on", "grass", "the", "red", "ball", "sits")


def random_captions(count: int, seed: int, most: int = 9, least: int = 0) -> list[list[str]]:
    """Returns captions of `least` to `most` random words."""
    rng = np.random.default_rng(seed)
    return [list(rng.choice(WORDS, rng.integers(least, most + 1))) for _ in range(count)]


def random_references(count: int, seed: int) -> list[list[list[str]]]:
    """Returns one to four reference captions for each of `count` photos."""
    rng = np.random.default_rng(seed)
    return [
        random_captions(int(rng.integers(1, 5)), seed * 1000 + i, least=1) for i in range(count)
    ]


def ngrams(words, n: int) -> Counter:
    """Returns how often each n-gram occurs."""
    return Counter(tuple(words[i : i + n]) for i in range(len(words) - n + 1))


def bleu(candidates, references) -> list[float]:
    """Returns BLEU-1 to BLEU-4 of a corpus."""
    scores, product = [], 1.0
    lengths = sum(map(len, candidates))
    closest = sum(
        min((abs(len(reference) - len(candidate)), len(reference)) for reference in group)[1]
        for candidate, group in zip(candidates, references, strict=True)
    )
    for n in range(1, 5):
        right = total = 0
        for candidate, group in zip(candidates, references, strict=True):
            counts = ngrams(candidate, n)
            total += sum(counts.values())
            for gram, count in counts.items():
                right += min(count, max(ngrams(reference, n)[gram] for reference in group))
        product *= (right + 1e-15) / (total + 1e-9)
        scores.append(product ** (1 / n) * min(1.0, math.exp(1 - closest / max(lengths, 1e-9))))
    return scores


def cider(candidates, references, images=None, clipped=True, frequencies_of=None) -> list[float]:
    """Returns CIDEr-D of each caption, or CIDEr if not `clipped`."""
    corpus = frequencies_of or references
    images = range(len(candidates)) if images is None else images

    def vector(words, n):
        weights = {}
        for gram, count in ngrams(words, n).items():
            having = sum(any(ngrams(r, n)[gram] for r in group) for group in corpus)
            weights[gram] = count * (math.log(len(corpus)) - math.log(max(having, 1)))
        return weights

    scores = []
    for candidate, image in zip(candidates, images, strict=True):
        total = 0.0
        for n in range(1, 5):
            mine = vector(candidate, n)
            for reference in references[image]:
                theirs = vector(reference, n)
                product = sum(
                    (min(weight, theirs.get(gram, 0)) if clipped else weight) * theirs.get(gram, 0)
                    for gram, weight in mine.items()
                )
                size = math.hypot(*mine.values()) * math.hypot(*theirs.values())
                difference = len(candidate) - len(reference)
                penalty = math.exp(-(difference**2) / 72) if clipped else 1.0
                total += penalty * product / size / len(references[image]) if size else 0.0
        scores.append(10 * total / 4)
    return scores


def common(first, second) -> int:
    """Returns the length of the longest common subsequence, by dynamic programming."""
    table = np.zeros((len(first) + 1, len(second) + 1), int)
    for i, a in enumerate(first, 1):
        for j, b in enumerate(second, 1):
            table[i, j] = (
                table[i - 1, j - 1] + 1 if a == b else max(table[i - 1, j], table[i, j - 1])
            )
    return int(table[-1, -1])
