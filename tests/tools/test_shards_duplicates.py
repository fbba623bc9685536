"""Tests of effcap.tools.shards.duplicates."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest

from effcap.tools.shards import index_shards
from effcap.tools.shards.duplicates import mark_excess
from effcap.trainers.data.shards import Filters, read_indexes
from helpers.tar_maker import captioned, sample, write_tar


@pytest.mark.parametrize("limit", (1, 2, 5))
def test_marks_equal_those_of_counting_one_by_one(limit):
    numbers = np.random.default_rng(0).integers(0, 9, 200).astype(np.uint64)
    counts: Counter = Counter()
    expected = []
    for number in numbers.tolist():
        expected.append(counts[number] >= limit)
        counts[number] += 1
    assert mark_excess(numbers, limit).tolist() == expected
    assert mark_excess(numbers[:0], limit).tolist() == []


def kept(shards: list[str], count: int) -> list[list[str]]:
    index_shards(shards, Filters(max_duplicates=count, caption="auto"))
    return [[text for i in range(len(s)) for text in s.captions(i)] for s in read_indexes(shards)]


def test_the_first_occurrences_over_all_shards_are_kept(tmp_path):
    shards = [
        write_tar(tmp_path / "0.tar", sample("0", "A dog.") + sample("1", "A cat.")),
        write_tar(tmp_path / "1.tar", sample("2", "A dog.") + sample("3", "A dog.")),
    ]
    assert kept(shards, 1) == [["A dog.", "A cat."], []]
    assert kept(shards, 2) == [["A dog.", "A cat."], ["A dog."]]
    assert kept(shards[::-1], 1) == [["A dog."], ["A cat."]]
    assert kept(shards, 3) == [["A dog.", "A cat."], ["A dog.", "A dog."]]
    assert (tmp_path / "1.idx").read_text().startswith("v1.2 2\njpg ")


def test_samples_with_another_caption_are_kept(tmp_path):
    shard = write_tar(
        tmp_path / "0.tar", sample("0") + captioned("1", {"captions": ["A dog.", "b"]})
    )
    summary = index_shards([shard], Filters(max_duplicates=1))
    (index,) = read_indexes([shard])
    assert index.captions(1) == ("b",) and summary.counts == {("caption", "duplicate caption"): 1}


def test_captions_of_unusable_samples_do_not_count(tmp_path):
    bad = [("0.jpg", b"no photo"), ("0.txt", b"A dog.")]
    shard = write_tar(tmp_path / "0.tar", bad + sample("1", "A dog."))
    assert kept([shard], 1) == [["A dog."]]


def test_another_limit_does_not_read_the_shards_again(tmp_path):
    shard = write_tar(tmp_path / "0.tar", sample("0") + sample("1") + sample("2"))
    assert kept([shard], 1) == [["A dog."]]
    summary = index_shards([shard], Filters(max_duplicates=2))
    assert summary.num_up_to_date == 1 and summary.num_samples == 2
