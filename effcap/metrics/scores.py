"""Scores a set of captions with all metrics."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from itertools import chain

import numpy as np

from effcap.metrics.bleu import bleu
from effcap.metrics.cider import CiderD
from effcap.metrics.diversity import (
    distinct_fraction,
    div_n,
    mean_length,
    self_cider,
    vocabulary_size,
)
from effcap.metrics.java import meteor, spice
from effcap.metrics.rouge import rouge_l
from effcap.metrics.tokenize import check_tokenization, tokenize

EXTRA = {"METEOR": meteor, "SPICE": spice}


@dataclass(frozen=True)
class Scores:
    """Scores of a corpus and of its images.

    Attributes:
        corpus: scores of all captions together by name, in display order.
        images: "ROUGE-L" and "CIDEr", and "METEOR" and "SPICE" if requested: (N,) scores of the
            images, each the mean over its captions.
    """

    corpus: dict[str, float]
    images: dict[str, np.ndarray]


def score_captions(
    captions: Sequence[str | Sequence[str]],
    references: Sequence[Sequence[str]],
    extra: Sequence[str] = (),
    track: Callable[[Iterable[str], int], Iterable[str]] = lambda texts, total: texts,
    tokenization: str = "ptb",
) -> Scores:
    """Scores captions against references, as COCO's evaluation does.

    Computes BLEU-1 to BLEU-4, ROUGE-L and CIDEr (which is CIDEr-D, see `CiderD`) on the tokens of
    `tokenize`, and measures of collapse: the fraction of distinct captions, the vocabulary size and
    the mean length. If there are several captions per image, each is scored separately, and div-1,
    div-2 and Self-CIDEr measure how much they differ.

    Args:
        captions: one caption or several of each of N images.
        references: references of each image.
        extra: additional metrics, "METEOR" and "SPICE", which need Java.
        track: function of the texts and their number that yields the texts while they are
            tokenized, for a progress bar.
        tokenization: "ptb" for English captions, "unicode" or "char" for other languages; see
            `tokenize`. Scores of different tokenizations cannot be compared.

    Raises:
        ValueError: there are no images, an image has no captions or references, there is no such
            tokenization, or `extra` is not empty for another language than English.
        ImportError: pycocoevalcap, which `extra` needs, is not installed.
        MetricUnavailable: Java, which `extra` needs, is missing.

    Example:
        >>> score_captions(["a dog runs"], [["A dog is running.", "a brown dog runs"]]).corpus
    """
    groups = [[texts] if isinstance(texts, str) else list(texts) for texts in captions]
    _check(groups, references)
    check_extra(extra, check_tokenization(tokenization))
    texts = list(chain.from_iterable((*groups, *references)))
    words = iter([tokenize(text, tokenization) for text in track(texts, len(texts))])
    tokenized = [[next(words) for _ in group] for group in groups]
    targets = [[next(words) for _ in group] for group in references]

    images = np.repeat(np.arange(len(groups)), [len(group) for group in groups])  # (C,) of captions
    candidates = list(chain.from_iterable(tokenized))
    paired = [targets[image] for image in images]
    cider = CiderD(targets)
    by_caption = {"ROUGE-L": rouge_l(candidates, paired), "CIDEr": cider.score(candidates, images)}
    corpus = {f"BLEU-{n}": score for n, score in enumerate(bleu(candidates, paired), 1)}
    corpus |= {name: scores.mean() for name, scores in by_caption.items()}
    for name in extra:
        corpus[name], by_caption[name] = EXTRA[name](candidates, paired)
    corpus |= {
        "distinct captions": distinct_fraction(candidates),
        "vocabulary": vocabulary_size(candidates),
        "mean length": mean_length(candidates),
    }
    if len(candidates) > len(groups):
        several = [group for group in tokenized if len(group) > 1]
        corpus |= {f"div-{n}": div_n(several, n) for n in (1, 2)}
        corpus["Self-CIDEr"] = self_cider(several, cider.frequencies)
    counts = np.bincount(images)
    return Scores(
        {name: score if isinstance(score, int) else float(score) for name, score in corpus.items()},
        {name: np.bincount(images, scores) / counts for name, scores in by_caption.items()},
    )


def check_extra(extra: Sequence[str], tokenization: str) -> None:
    """Checks that metrics apply to the language of a tokenization.

    Raises:
        ValueError: METEOR or SPICE is requested for another language than English.
    """
    if extra and tokenization != "ptb":
        raise ValueError(
            f"{' and '.join(extra)} can only score English, with the tokenization 'ptb'. "
            f"Received: tokenization={tokenization!r}"
        )


def _check(groups: Sequence[Sequence[str]], references: Sequence[Sequence[str]]) -> None:
    if not groups or len(groups) != len(references):
        raise ValueError(
            "Expected captions and references of the same images, at least one. Received: "
            f"captions of {len(groups)}, references of {len(references)}"
        )
    for name, lists in (("caption", groups), ("reference", references)):
        for i, texts in enumerate(lists):
            if isinstance(texts, str) or not texts:
                raise ValueError(
                    f"Expected a list of at least one {name} for image {i}. Received: {texts!r}"
                )
