"""Tests of the datasets for `fit` and of prefetching."""

from __future__ import annotations

import threading
import time

import keras
import numpy as np
import pytest

from effcap.trainers.batching.prefetch import as_dataset, prefetch


class Batches:
    """Batches that hold their index, in rows of varying length; later ones are ready first."""

    workers, max_queue_size = 3, 4

    def __init__(self, count: int = 9, lengths=(4, 4, 8)):
        self.count, self.lengths, self.requested = count, lengths, []

    def __len__(self) -> int:
        return self.count

    def __getitem__(self, index: int):
        self.requested.append(index)
        if not 0 <= index < self.count:
            raise IndexError(index)
        time.sleep(0.002 * (self.count - index))
        length = self.lengths[index % len(self.lengths)]
        tokens = np.full((2, length), index, np.int32)  # (B,T)
        inputs = {"images": np.full((2, 8, 8, 3), index, np.uint8), "tokens": tokens}
        return inputs, tokens, np.ones((2, length), np.float32)


def indices(dataset) -> list[int]:
    """Returns the indices of the batches of a dataset."""
    values = []
    for index, (inputs, targets, weights) in enumerate(dataset):
        if index == getattr(dataset, "last", 10**9) - getattr(dataset, "first", 0):
            break  # iteration over a PyDataset does not end
        assert inputs["images"].shape == (2, 8, 8, 3) and weights.shape == targets.shape
        values.append(int(np.asarray(targets)[0, 0]))
    return values


@pytest.mark.parametrize(("first", "last"), ((0, None), (0, 9), (4, 9), (8, 9), (2, 5)))
def test_a_range_of_an_epoch_keeps_its_order(first, last):
    assert indices(as_dataset(Batches(), first, last)) == list(range(first, last or 9))


@pytest.mark.skipif(keras.backend.backend() != "tensorflow", reason="tests tf.data datasets")
def test_all_ranges_have_the_same_signature():
    specs = {str(as_dataset(Batches(), first, 9).element_spec) for first in range(9)}
    assert len(specs) == 1 and "(None, 8, 8, 3)" in specs.pop()


def test_a_limited_number_of_batches_is_prefetched():
    batches = Batches(count=40)
    stream = prefetch(batches, 0, 40)
    next(stream)
    time.sleep(0.3)
    assert 3 < len(batches.requested) <= 1 + batches.max_queue_size + batches.workers
    stream.close()


def test_threads_end_when_the_stream_is_closed():
    before = threading.active_count()
    stream = prefetch(Batches(count=40), 0, 40)
    next(stream)
    stream.close()
    deadline = time.monotonic() + 5
    while threading.active_count() > before and time.monotonic() < deadline:
        time.sleep(0.01)
    assert threading.active_count() <= before


def test_errors_in_threads_are_raised():
    with pytest.raises(IndexError):
        list(prefetch(Batches(), 7, 12))
