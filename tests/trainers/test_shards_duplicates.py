"""Captions there too often are left out, counted over all shards in their order."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest
from helpers.tar_maker import captioned, sample, write_tar

from effcap.trainers.data.shards import Filters, index_shards, read_indexes
from effcap.trainers.data.shards.duplicates import too_often


@pytest.mark.parametrize("allowed", (1, 2, 5))
def test_marks_are_those_of_counting_one_by_one(allowed):
    numbers = np.random.default_rng(0).integers(0, 9, 200).astype(np.uint64)
    seen: Counter = Counter()
    expected = []
    for number in numbers.tolist():
        expected.append(seen[number] >= allowed)
        seen[number] += 1
    assert too_often(numbers, allowed).tolist() == expected
    assert too_often(numbers[:0], allowed).tolist() == []


def kept(shards: list[str], count: int) -> list[list[str]]:
    index_shards(shards, Filters(max_duplicates=count, caption="auto"))
    return [[text for i in range(len(s)) for text in s.captions(i)] for s in read_indexes(shards)]


def test_the_first_in_the_order_of_shards_stay(tmp_path):
    shards = [
        write_tar(tmp_path / "0.tar", sample("0", "A dog.") + sample("1", "A cat.")),
        write_tar(tmp_path / "1.tar", sample("2", "A dog.") + sample("3", "A dog.")),
    ]
    assert kept(shards, 1) == [["A dog.", "A cat."], []]
    assert kept(shards, 2) == [["A dog.", "A cat."], ["A dog."]]
    assert kept(shards[::-1], 1) == [["A dog."], ["A cat."]]
    assert kept(shards, 3) == [["A dog.", "A cat."], ["A dog.", "A dog."]]
    assert (tmp_path / "1.idx").read_text().startswith("v1.2 2\njpg ")


def test_a_sample_with_another_caption_stays_and_one_caption_lost_is_told(tmp_path):
    shard = write_tar(
        tmp_path / "0.tar", sample("0") + captioned("1", {"captions": ["A dog.", "b"]})
    )
    summary = index_shards([shard], Filters(max_duplicates=1))
    (index,) = read_indexes([shard])
    assert index.captions(1) == ("b",) and summary.counts == {("caption", "caption duplicate"): 1}


def test_captions_of_samples_that_are_left_out_do_not_count(tmp_path):
    bad = [("0.jpg", b"no photo"), ("0.txt", b"A dog.")]
    shard = write_tar(tmp_path / "0.tar", bad + sample("1", "A dog."))
    assert kept([shard], 1) == [["A dog."]]


def test_another_number_is_counted_without_reading_the_shards_again(tmp_path):
    shard = write_tar(tmp_path / "0.tar", sample("0") + sample("1") + sample("2"))
    assert kept([shard], 1) == [["A dog."]]
    summary = index_shards([shard], Filters(max_duplicates=2))
    assert summary.known == 1 and summary.samples == 2
