"""Measures of the diversity of captions."""

from __future__ import annotations

import numpy as np
import pytest

from effcap.metrics import (
    DocumentFrequencies,
    distinct_fraction,
    div_n,
    mean_length,
    self_cider,
    vocabulary_size,
)
from helpers import metrics_reference

FREQUENCIES = DocumentFrequencies.from_references(metrics_reference.random_references(20, 1))


def test_distinct_fraction_vocabulary_size_and_mean_length():
    captions = [["a", "dog"], ["a", "dog"], ["a", "cat", "sits"], []]
    assert distinct_fraction(captions) == 0.75
    assert vocabulary_size(captions) == 4
    assert mean_length(captions) == 7 / 4


def test_div_n_is_distinct_ngrams_divided_by_words():
    captions = [[["a", "dog", "runs"], ["a", "dog", "sits"]], [["x"], ["x"]]]
    assert div_n(captions, 1) == pytest.approx((4 / 6 + 1 / 2) / 2)
    assert div_n(captions, 2) == pytest.approx((3 / 6 + 0) / 2)


def test_self_cider_is_zero_for_equal_and_one_for_disjoint_captions():
    same = ["a", "red", "dog", "runs", "on", "the", "grass"]
    assert self_cider([[same] * 4], FREQUENCIES) == pytest.approx(0, abs=1e-6)
    others = [list("abcde"), list("fghij"), list("klmno")]
    assert self_cider([others], FREQUENCIES) == pytest.approx(1)


def test_self_cider_matches_its_formula_and_grows_with_diversity():
    captions = metrics_reference.random_captions(5, 2, least=5)
    unclipped = np.array(
        [
            metrics_reference.cider(
                captions,
                [[words]] * 5,
                clipped=False,
                frequencies_of=metrics_reference.random_references(20, 1),
            )
            for words in captions
        ]
    )
    roots = np.sqrt(np.linalg.eigvalsh(unclipped / 10).clip(0))
    expected = -np.log(roots.max() / roots.sum()) / np.log(5)
    assert self_cider([captions], FREQUENCIES) == pytest.approx(expected, abs=1e-6)
    collapsed = self_cider([[captions[0]] * 4 + [captions[1]]], FREQUENCIES)
    assert 0 < collapsed < self_cider([captions], FREQUENCIES)


def test_self_cider_of_empty_captions_is_zero_and_of_one_caption_raises():
    assert self_cider([[[], []]], FREQUENCIES) == 0
    with pytest.raises(ValueError, match="two captions or more per photo. Received: 1"):
        self_cider([[["a"]]], FREQUENCIES)
