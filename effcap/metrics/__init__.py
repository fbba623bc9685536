"""Caption metrics in NumPy: BLEU, ROUGE-L, CIDEr and diversity; METEOR and SPICE through Java.

    from effcap.metrics import score_captions
    score_captions(["a dog runs"], [["A dog is running.", "a brown dog runs"]]).corpus
    score_captions(["犬が走る"], [["犬が走っている。"]], tokenization="char").corpus

Only METEOR and SPICE need Java, and nothing exported here needs Keras.
"""

from __future__ import annotations

from effcap.metrics.bleu import bleu
from effcap.metrics.cider import CiderD, PlainCider
from effcap.metrics.diversity import (
    distinct_fraction,
    div_n,
    mean_length,
    self_cider,
    vocabulary_size,
)
from effcap.metrics.frequencies import DocumentFrequencies
from effcap.metrics.java import MetricUnavailable, meteor, spice
from effcap.metrics.rouge import rouge_l
from effcap.metrics.scores import Scores, score_captions
from effcap.metrics.tokenize import tokenize

__all__ = [
    "CiderD",
    "DocumentFrequencies",
    "MetricUnavailable",
    "PlainCider",
    "Scores",
    "bleu",
    "distinct_fraction",
    "div_n",
    "mean_length",
    "meteor",
    "rouge_l",
    "score_captions",
    "self_cider",
    "spice",
    "tokenize",
    "vocabulary_size",
]
