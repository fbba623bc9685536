"""Tests of effcap.trainers.data.shards.order."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest

from effcap.trainers.data.shards.order import Collection, EpochOrder

COUNTS = [10, 0, 7, 20, 3]


def epoch_of(
    collection: Collection, epoch: int = 0, num_processes: int = 1, block: int = 4, **options
) -> list[list[int]]:
    """Returns the photos of each process in order, block after block."""
    order = EpochOrder(collection, epoch, num_processes, block, **options)
    num_blocks = len(collection) // block + 2
    return [
        np.concatenate([order.photos(process, number) for number in range(num_blocks)]).tolist()
        for process in range(num_processes)
    ]


@pytest.mark.parametrize("num_processes", [1, 2, 3, 7])
@pytest.mark.parametrize("block", [1, 4, 100])
def test_every_photo_is_in_an_epoch_once(num_processes, block):
    collection = Collection(COUNTS, [1.0] * 5)
    for epoch in range(3):
        photos = epoch_of(collection, epoch, num_processes, block)
        assert sorted(sum(photos, [])) == list(range(40))
        lengths = list(map(len, photos))
        assert max(lengths) - min(lengths) <= 1


def test_photos_of_a_shard_stay_together_and_shards_are_shuffled():
    collection = Collection(COUNTS, [1.0] * 5)
    orders = []
    for epoch in range(6):
        (photos,) = epoch_of(collection, epoch)
        shards = collection.shard_of(np.array(photos))
        assert np.count_nonzero(np.diff(shards)) == 3  # four shards hold photos
        orders.append(tuple(dict.fromkeys(shards.tolist())))
    assert len(set(orders)) > 1


def test_the_order_depends_only_on_seed_and_epoch():
    first, same = (Collection(COUNTS, [1.0] * 5, seed=3) for _ in range(2))
    other = Collection(COUNTS, [1.0] * 5, seed=4)
    assert epoch_of(first, 5) == epoch_of(same, 5)
    assert any(epoch_of(first, epoch) != epoch_of(other, epoch) for epoch in range(4))


def test_without_shuffling_the_order_is_that_of_the_shards():
    collection = Collection(COUNTS, [1.0] * 5)
    for epoch in range(2):
        assert epoch_of(collection, epoch, shuffle=False) == [list(range(40))]


def test_passes_repeat_photos_or_select_a_part_of_them():
    collection = Collection([10, 20, 8], [2.0, 1.0, 0.5])
    selected = set()
    for epoch in range(8):
        (photos,) = epoch_of(collection, epoch)
        counts = Counter(photos)
        assert len(collection) == len(photos) == 44
        assert all(counts[photo] == 2 for photo in range(10))
        assert all(counts[photo] == 1 for photo in range(10, 30))
        half = {photo for photo in counts if photo >= 30}
        assert len(half) == 4 and all(counts[photo] == 1 for photo in half)
        selected |= half
    assert len(selected) > 4  # others in other epochs


def test_shards_without_passes_are_left_out():
    assert epoch_of(Collection([5, 5], [0.0, 1.0]), shuffle=False) == [[5, 6, 7, 8, 9]]


def test_a_fraction_is_the_same_photos_in_all_epochs():
    collection = Collection([100, 100, 50], [1.0] * 3, fraction=0.1, seed=1)
    epochs = [set(epoch_of(collection, epoch)[0]) for epoch in range(3)]
    assert epochs[0] == epochs[1] == epochs[2]
    assert Counter(collection.shard_of(np.array(sorted(epochs[0]))).tolist()) == {
        0: 10,
        1: 10,
        2: 5,
    }
    assert epochs[0] != set(epoch_of(Collection([100, 100, 50], [1.0] * 3, 0.1, 2))[0])


def test_the_smallest_fraction_is_one_photo():
    assert len(Collection([3, 4], [1.0, 1.0], fraction=0.001)) == 1


def test_shards_without_photos_raise_an_error():
    with pytest.raises(ValueError, match="no photos"):
        Collection([0, 0], [1.0, 1.0])


def test_millions_of_photos_take_little_memory():
    collection = Collection([10_000] * 1_200, [1.0] * 1_200)
    order = EpochOrder(collection, 0, 8, 32_768)
    assert len(order.photos(7, 40)) == 32_768
    assert order.visits.nbytes + order.ends.nbytes < 100_000
