"""N-gram counts and indexes against counting one caption at a time."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest

from effcap.metrics.ngrams import HashedCaptions, NgramIndex, count_ngrams, flatten
from helpers import metrics_reference


@pytest.mark.parametrize("n", (1, 2, 3, 4))
def test_counts_match_those_of_each_caption(n):
    captions = metrics_reference.random_captions(50, seed=1)
    counts = count_ngrams(HashedCaptions.from_tokens(captions), n)
    for row, caption in enumerate(captions):
        expected = metrics_reference.ngrams(caption, n)
        assert sorted(counts.counts[counts.rows == row]) == sorted(expected.values())
    total = Counter(gram for words in captions for gram in metrics_reference.ngrams(words, n))
    assert len(np.unique(counts.hashes)) == len(total)


def test_ngrams_of_different_word_order_differ():
    counts = count_ngrams(
        HashedCaptions.from_tokens([["a", "b"], ["b", "a"], ["a", "a"], ["b", "b"]]), 2
    )
    assert len(np.unique(counts.hashes)) == 4


def test_empty_and_short_captions_have_no_ngrams():
    for captions in ([], [[]], [["a"], [], ["b"]]):
        assert not len(count_ngrams(HashedCaptions.from_tokens(captions), 2).rows)


def test_token_ids_hash_equally_as_arrays_and_lists():
    arrays = HashedCaptions.from_tokens([np.array([3, 12], np.int32), np.array([3], np.int64)])
    lists = HashedCaptions.from_tokens([[3, 12], [3]])
    assert np.array_equal(arrays.words, lists.words)


def test_ngrams_are_found_only_in_their_group():
    index = NgramIndex(np.array([1, 0, 1, 1]), np.array([5, 7, 5, 9], np.uint64))
    starts, ends = index.find(np.array([1, 0, 0, 2, 1]), np.array([5, 5, 7, 5, 8], np.uint64))
    assert list(ends - starts) == [2, 0, 1, 0, 0]
    assert set(index.order[starts[0] : ends[0]]) == {0, 2}


def test_text_and_images_without_references_raise():
    with pytest.raises(TypeError, match=r"returned by tokenize\(\)\. Received: 'a dog'"):
        HashedCaptions.from_tokens(["a dog"])
    with pytest.raises(ValueError, match="at least one reference per image. .* none for image 1"):
        flatten([[["a"]], []])
