"""Scores of captions: BLEU, ROUGE-L, CIDEr and how varied they are, in NumPy; METEOR and SPICE.

    from effcap.metrics import score_captions
    score_captions(["a dog runs"], [["A dog is running.", "a brown dog runs"]]).corpus

Nothing here needs Keras or TensorFlow, and only METEOR and SPICE need Java.
"""

from effcap.metrics.bleu import bleu
from effcap.metrics.cider import CiderD, PlainCider
from effcap.metrics.diversity import (
    distinct_share,
    div_n,
    mean_length,
    self_cider,
    vocabulary,
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
    "distinct_share",
    "div_n",
    "mean_length",
    "meteor",
    "rouge_l",
    "score_captions",
    "self_cider",
    "spice",
    "tokenize",
    "vocabulary",
]
