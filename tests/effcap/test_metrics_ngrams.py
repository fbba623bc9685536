"""N-grams counted by arrays are those counted one by one."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest
from helpers import metrics_reference

from effcap.metrics.ngrams import Captions, Places, count_ngrams, flatten


@pytest.mark.parametrize("n", (1, 2, 3, 4))
def test_counts_are_those_of_each_caption(n):
    captions = metrics_reference.random_captions(50, seed=1)
    counts = count_ngrams(Captions.of(captions), n)
    for row, caption in enumerate(captions):
        expected = metrics_reference.ngrams(caption, n)
        assert sorted(counts.counts[counts.rows == row]) == sorted(expected.values())
    every = Counter(gram for words in captions for gram in metrics_reference.ngrams(words, n))
    assert len(np.unique(counts.hashes)) == len(every)


def test_order_of_words_makes_another_ngram():
    counts = count_ngrams(Captions.of([["a", "b"], ["b", "a"], ["a", "a"], ["b", "b"]]), 2)
    assert len(np.unique(counts.hashes)) == 4


def test_no_captions_and_captions_too_short_have_none():
    for captions in ([], [[]], [["a"], [], ["b"]]):
        assert not len(count_ngrams(Captions.of(captions), 2).rows)


def test_token_ids_are_words_whatever_their_type():
    arrays = Captions.of([np.array([3, 12], np.int32), np.array([3], np.int64)])
    lists = Captions.of([[3, 12], [3]])
    assert np.array_equal(arrays.words, lists.words)


def test_ngrams_are_found_in_their_group_alone():
    places = Places(np.array([1, 0, 1, 1]), np.array([5, 7, 5, 9], np.uint64))
    starts, ends = places.find(np.array([1, 0, 0, 2, 1]), np.array([5, 5, 7, 5, 8], np.uint64))
    assert list(ends - starts) == [2, 0, 1, 0, 0]
    assert set(places.order[starts[0] : ends[0]]) == {0, 2}


def test_text_and_images_without_references_are_refused():
    with pytest.raises(TypeError, match="as tokenize.. gives them. Received the text: 'a dog'"):
        Captions.of(["a dog"])
    with pytest.raises(ValueError, match="at least one reference per image. .* none for image 1"):
        flatten([[["a"]], []])
