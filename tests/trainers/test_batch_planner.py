"""Tests of effcap.trainers.data.shards.batch_planner, which reads no photos."""

from __future__ import annotations

import numpy as np
import pytest

from effcap.tokenizers import Tokenizer
from effcap.trainers.data.augmentation import Augmentation, View
from effcap.trainers.data.shards.batch_planner import BatchPlanner
from effcap.trainers.data.shards.order import Collection, PhotoId
from effcap.trainers.data.shards.shard_index import IndexedSample, ShardIndex
from effcap.trainers.options.batches import BatchOptions
from helpers.shard_maker import make_captions

COUNTS = (9, 14, 7)


@pytest.fixture(scope="module")
def tokenizer() -> Tokenizer:
    return Tokenizer.train([text for i in range(30) for text in make_captions(i)], 300)


@pytest.fixture(scope="module")
def indexes() -> list[ShardIndex]:
    """Indexes of shards that do not exist."""
    samples = [IndexedSample(f"{n}", 0, 1, 0, make_captions(n)) for n in range(sum(COUNTS))]
    ends = np.cumsum(COUNTS)
    return [
        ShardIndex.from_samples(f"{shard}.tar", samples[end - count : end])
        for shard, (count, end) in enumerate(zip(COUNTS, ends, strict=True))
    ]


def make(indexes, tokenizer, max_text_length=64, shuffle_block=8, **options) -> BatchPlanner:
    settings = BatchOptions(**{"batch_size": 4, **options})
    collection = Collection(list(map(len, indexes)), [1.0] * len(indexes), seed=settings.seed)
    return BatchPlanner(indexes, collection, tokenizer, max_text_length, settings, shuffle_block)


def rows_of(planner: BatchPlanner, epoch: int = 0) -> list:
    num_blocks = -(-planner.num_batches // planner.block_batches)
    blocks = [planner.block(epoch, number) for number in range(num_blocks)]
    assert sum(len(block.batches) for block in blocks) == planner.num_batches
    return [row for block in blocks for _, rows in block.batches for row in rows if row is not None]


@pytest.mark.parametrize("num_processes", [1, 2, 4])
def test_every_photo_is_planned_once_per_epoch(indexes, tokenizer, num_processes):
    planner = make(indexes, tokenizer, num_processes=num_processes)
    photos = sorted(row.photo for row in rows_of(planner, 1))
    assert photos == [PhotoId(i, j) for i, count in enumerate(COUNTS) for j in range(count)]


def test_a_block_depends_only_on_epoch_and_number(indexes, tokenizer):
    first, second = (make(indexes, tokenizer) for _ in range(2))
    expected = [(row.photo, row.flip, row.draw) for row in rows_of(first, 2)]
    second.block(5, 1)
    assert [(row.photo, row.flip, row.draw) for row in rows_of(second, 2)] == expected
    assert [(row.photo, row.flip, row.draw) for row in rows_of(second, 3)] != expected


def test_photos_of_a_block_are_listed_in_the_order_of_the_shards(indexes, tokenizer):
    planner = make(indexes, tokenizer, num_processes=2)
    block = planner.block(0, 1)
    planned = [row.photo for _, rows in block.batches for row in rows if row is not None]
    assert sorted(sum(block.photos, [])) == sorted(planned)
    for photos in block.photos:
        for before, after in zip(photos[:-1], photos[1:], strict=True):
            assert before.shard != after.shard or before.sample < after.sample


def test_rows_fit_into_their_row_length(indexes, tokenizer):
    planner = make(indexes, tokenizer, shuffle_block=100)
    for length, rows in planner.block(0, 0).batches:
        assert max(row.length for row in rows if row is not None) <= length


def test_photos_are_flipped_only_if_their_captions_allow_it(tokenizer):
    texts = ("a dog on the left", "a dog on the grass")
    samples = [IndexedSample(f"{i}", 0, 1, 0, (texts[i % 2],)) for i in range(40)]
    indexes = [ShardIndex.from_samples("0.tar", samples)]
    augmentation = Augmentation(horizontal_flip=True)
    flips = [
        (row.photo.sample % 2, row.flip)
        for row in rows_of(make(indexes, tokenizer, augmentation=augmentation))
    ]
    assert set(flips) == {(0, False), (1, False), (1, True)}
    for options in ({}, {"augmentation": augmentation, "shuffle": False}):
        assert not any(row.flip for row in rows_of(make(indexes, tokenizer, **options)))


def test_views_are_random_only_with_shuffling(indexes, tokenizer):
    augmentation = Augmentation(random_crop=0.5)
    shuffled = make(indexes, tokenizer, augmentation=augmentation)
    views = {shuffled.view(row) for row in rows_of(shuffled)}
    assert len(views) == sum(COUNTS) and View() not in views
    plain = make(indexes, tokenizer, augmentation=augmentation, shuffle=False)
    assert {plain.view(row) for row in rows_of(plain)} == {View()}


def test_too_long_captions_are_left_out_and_photos_without_others_listed(indexes, tokenizer):
    lengths = [
        min(len(tokens) for tokens in tokenizer.encode_batch(index.captions(i)))
        for index in indexes
        for i in range(len(index))
    ]
    limit = int(np.median(lengths)) + 1
    planner = make(indexes, tokenizer, max_text_length=limit, shuffle_block=100)
    block = planner.block(0, 0)
    rows = [row for _, rows in block.batches for row in rows if row is not None]
    assert all(len(caption) < limit for row in rows for caption in row.captions)
    assert len(block.too_long) == sum(length >= limit for length in lengths) > 0
    assert len(rows) + len(block.too_long) == sum(COUNTS)


def test_a_block_below_1_raises_an_error(indexes, tokenizer):
    with pytest.raises(ValueError, match="shuffle_block=0"):
        make(indexes, tokenizer, shuffle_block=0)
