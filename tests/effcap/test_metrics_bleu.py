"""BLEU is its formula, with the reference of the closest length."""

from __future__ import annotations

import numpy as np
import pytest
from helpers import metrics_reference

from effcap.metrics import bleu


@pytest.mark.parametrize("seed", (1, 2, 3))
def test_bleu_is_its_formula(seed):
    candidates = metrics_reference.random_captions(40, seed)
    references = metrics_reference.random_references(40, seed)
    expected = metrics_reference.bleu(candidates, references)
    assert bleu(candidates, references) == pytest.approx(expected, rel=1e-6)


def test_of_two_equally_close_lengths_the_shorter_counts():
    candidate = ["a", "dog", "runs", "on"]
    longer, shorter = ["a", "dog", "runs", "on", "grass"], ["a", "dog", "runs"]
    assert bleu([candidate], [[longer, shorter]])[0] == pytest.approx(1)
    assert bleu([candidate], [[longer]])[0] == pytest.approx(np.exp(1 - 5 / 4))


def test_a_word_counts_as_often_as_a_reference_has_it():
    scores = bleu([["the"] * 7], [[["the", "cat", "is", "on", "the", "mat"], ["there", "is"]]])
    assert scores[0] == pytest.approx(2 / 7)


def test_captions_without_words_score_nothing():
    assert bleu([[]], [[["a", "dog"]]]) == pytest.approx(0)


def test_captions_and_references_must_pair():
    for candidates, references in (([], []), ([["a"]], [[["a"]], [["b"]]])):
        with pytest.raises(ValueError, match="Expected candidates, and the references of each"):
            bleu(candidates, references)
    with pytest.raises(TypeError, match="tokens"):
        bleu(["a dog"], [[["a"]]])
