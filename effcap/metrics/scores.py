"""All scores of a set of captions."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from itertools import chain

import numpy as np

from effcap.metrics.bleu import bleu
from effcap.metrics.cider import CiderD
from effcap.metrics.diversity import (
    distinct_share,
    div_n,
    mean_length,
    self_cider,
    vocabulary,
)
from effcap.metrics.java import meteor, spice
from effcap.metrics.ngrams import Tokens
from effcap.metrics.rouge import rouge_l
from effcap.metrics.tokenize import tokenize

EXTRA = {"METEOR": meteor, "SPICE": spice}


@dataclass(frozen=True)
class Scores:
    """What `score_captions` found.

    Attributes:
        corpus: scores of all captions together by their names, in the order to show them in.
        images: "CIDEr" and "ROUGE-L", and METEOR and SPICE where asked for: (N,) of each image,
            the mean of its captions'.
    """

    corpus: dict[str, float]
    images: dict[str, np.ndarray]


def score_captions(
    captions: Sequence[str | Sequence[str]],
    references: Sequence[Sequence[str]],
    extra: Iterable[str] = (),
    track: Callable[[Iterable[str], int], Iterable[str]] = lambda texts, total: texts,
) -> Scores:
    """Scores captions against references, as COCO's evaluation does.

    BLEU-1 to BLEU-4, ROUGE-L and CIDEr (which is CIDEr-D, see `CiderD`) on tokens of `tokenize`;
    and what shows collapsed captions: the share that are distinct, the words used, the mean length.
    Where there are several captions per image, each is scored by itself, and div-1, div-2 and
    Self-CIDEr tell how much they differ.

    Args:
        captions: of each of N images, a caption or several.
        references: of each image, what people said.
        extra: "METEOR", "SPICE": what needs Java.
        track: passes the texts on as they are tokenized, of so many, for a progress bar.

    Returns:
        `Scores`.

    Raises:
        ValueError: without images, or for an image without captions or references.
        MetricUnavailable: for what needs Java, where that is missing.

    Example:
        >>> score_captions(["a dog runs"], [["A dog is running.", "a brown dog runs"]]).corpus
    """
    groups = [[texts] if isinstance(texts, str) else list(texts) for texts in captions]
    _check(groups, references)
    texts = list(chain.from_iterable((*groups, *references)))
    words = iter([tokenize(text) for text in track(texts, len(texts))])
    found = [[next(words) for _ in group] for group in groups]
    targets = [[next(words) for _ in group] for group in references]

    images = np.repeat(np.arange(len(groups)), [len(group) for group in groups])  # (C,) captions
    candidates: list[Tokens] = list(chain.from_iterable(found))
    paired = [targets[image] for image in images]
    cider = CiderD(targets)
    each = {"ROUGE-L": rouge_l(candidates, paired), "CIDEr": cider.score(candidates, images)}
    corpus = {f"BLEU-{n}": score for n, score in enumerate(bleu(candidates, paired), 1)}
    corpus |= {name: scores.mean() for name, scores in each.items()}
    for name in extra:
        corpus[name], each[name] = EXTRA[name](candidates, paired)
    corpus |= {
        "distinct captions": distinct_share(candidates),
        "vocabulary": vocabulary(candidates),
        "mean length": mean_length(candidates),
    }
    if len(candidates) > len(groups):
        several = [group for group in found if len(group) > 1]
        corpus |= {f"div-{n}": div_n(several, n) for n in (1, 2)}
        corpus["Self-CIDEr"] = self_cider(several, cider.frequencies)
    counts = np.bincount(images)
    return Scores(
        {name: score if isinstance(score, int) else float(score) for name, score in corpus.items()},
        {name: np.bincount(images, scores) / counts for name, scores in each.items()},
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
