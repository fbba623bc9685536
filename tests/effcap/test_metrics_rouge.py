"""ROUGE-L against its formula, and errors."""

from __future__ import annotations

import pytest

from effcap.metrics import rouge_l
from helpers import metrics_reference


def test_rouge_l_matches_its_formula():
    candidates = metrics_reference.random_captions(60, 4, least=1)
    references = metrics_reference.random_references(60, 5)
    for score, words, group in zip(
        rouge_l(candidates, references), candidates, references, strict=True
    ):
        lengths = [metrics_reference.common(words, reference) for reference in group]
        p = max(lengths) / len(words)
        r = max(n / len(reference) for n, reference in zip(lengths, group, strict=True))
        expected = (1 + 1.44) * p * r / (r + 1.44 * p) if p else 0
        assert score == pytest.approx(expected)


def test_captions_may_be_longer_than_64_words():
    words = [str(i) for i in range(200)]
    assert rouge_l([words], [[words[::2]]])[0] == pytest.approx(2.44 * 0.5 / (1 + 1.44 * 0.5))


def test_empty_captions_score_zero():
    assert rouge_l([[], ["a"]], [[["a"]], [[]]]).tolist() == [0, 0]


def test_text_and_missing_references_raise():
    with pytest.raises(TypeError, match="in tokens, .* Received: 'a dog'"):
        rouge_l(["a dog"], [[["a"]]])
    with pytest.raises(ValueError, match="at least one reference"):
        rouge_l([["a"]], [[]])
