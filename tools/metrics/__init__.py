"""Scores of captions: BLEU, ROUGE-L, CIDEr and how varied they are, in NumPy; METEOR and SPICE.

    from effcap.tools.metrics import score_captions
    score_captions(["a dog runs"], [["A dog is running.", "a brown dog runs"]]).corpus

Nothing here needs Keras or TensorFlow, and only METEOR and SPICE need Java.
"""

from effcap.tools.metrics.bleu import bleu
from effcap.tools.metrics.cider import CiderD, PlainCider
from effcap.tools.metrics.diversity import (
    distinct_share,
    div_n,
    mean_length,
    self_cider,
    vocabulary,
)
from effcap.tools.metrics.frequencies import DocumentFrequencies
from effcap.tools.metrics.java import MetricUnavailable, meteor, spice
from effcap.tools.metrics.rouge import rouge_l
from effcap.tools.metrics.scores import Scores, score_captions
from effcap.tools.metrics.tokenize import tokenize

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
