"""BLEU against its formula, clipping and reference lengths."""

from __future__ import annotations

import numpy as np
import pytest

from effcap.metrics import bleu
from helpers import metrics_reference


@pytest.mark.parametrize("seed", (1, 2, 3))
def test_bleu_matches_its_formula(seed):
    candidates = metrics_reference.random_captions(40, seed)
    references = metrics_reference.random_references(40, seed)
    expected = metrics_reference.bleu(candidates, references)
    assert bleu(candidates, references) == pytest.approx(expected, rel=1e-6)


def test_of_two_equally_close_lengths_the_shorter_is_used():
    candidate = ["a", "dog", "runs", "on"]
    longer, shorter = ["a", "dog", "runs", "on", "grass"], ["a", "dog", "runs"]
    assert bleu([candidate], [[longer, shorter]])[0] == pytest.approx(1)
    assert bleu([candidate], [[longer]])[0] == pytest.approx(np.exp(1 - 5 / 4))


def test_matches_are_clipped_to_the_references():
    scores = bleu([["the"] * 7], [[["the", "cat", "is", "on", "the", "mat"], ["there", "is"]]])
    assert scores[0] == pytest.approx(2 / 7)


def test_empty_captions_score_zero():
    assert bleu([[]], [[["a", "dog"]]]) == pytest.approx(0)


def test_numbers_of_captions_and_references_must_match():
    for candidates, references in (([], []), ([["a"]], [[["a"]], [["b"]]])):
        with pytest.raises(ValueError, match="Expected candidates, and the references of each"):
            bleu(candidates, references)
    with pytest.raises(TypeError, match="tokens"):
        bleu(["a dog"], [[["a"]]])
