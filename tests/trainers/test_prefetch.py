"""Batches on their way into `fit`."""

from __future__ import annotations

import threading
import time

import keras
import numpy as np
import pytest

from effcap.trainers.batching.prefetch import ahead, feed


class Batches:
    """Batch i holds i, in rows of varying length; the later ones are ready first."""

    workers, max_queue_size = 3, 4

    def __init__(self, count: int = 9, lengths=(4, 4, 8)):
        self.count, self.lengths, self.asked = count, lengths, []

    def __len__(self) -> int:
        return self.count

    def __getitem__(self, index: int):
        self.asked.append(index)
        if not 0 <= index < self.count:
            raise IndexError(index)
        time.sleep(0.002 * (self.count - index))
        length = self.lengths[index % len(self.lengths)]
        tokens = np.full((2, length), index, np.int32)  # (B,T)
        inputs = {"images": np.full((2, 8, 8, 3), index, np.uint8), "tokens": tokens}
        return inputs, tokens, np.ones((2, length), np.float32)


def numbers(dataset) -> list[int]:
    found = []
    for index, (inputs, targets, weights) in enumerate(dataset):
        if index == getattr(dataset, "last", 10**9) - getattr(dataset, "first", 0):
            break  # a PyDataset does not end by itself
        assert inputs["images"].shape == (2, 8, 8, 3) and weights.shape == targets.shape
        found.append(int(np.asarray(targets)[0, 0]))
    return found


@pytest.mark.parametrize(("first", "last"), ((0, None), (0, 9), (4, 9), (8, 9), (2, 5)))
def test_a_part_of_an_epoch_comes_in_order(first, last):
    assert numbers(feed(Batches(), first, last)) == list(range(first, last or 9))


@pytest.mark.skipif(keras.backend.backend() != "tensorflow", reason="of TensorFlow's datasets")
def test_the_compiled_step_is_the_same_whatever_part_comes():
    specs = {str(feed(Batches(), first, 9).element_spec) for first in range(9)}
    assert len(specs) == 1 and "(None, 8, 8, 3)" in specs.pop()


def test_batches_are_prepared_ahead_but_not_all_of_them():
    batches = Batches(count=40)
    stream = ahead(batches, 0, 40)
    next(stream)
    time.sleep(0.3)
    assert 3 < len(batches.asked) <= 1 + batches.max_queue_size + batches.workers
    stream.close()


def test_threads_end_when_the_stream_is_closed():
    before = threading.active_count()
    stream = ahead(Batches(count=40), 0, 40)
    next(stream)
    stream.close()
    deadline = time.monotonic() + 5
    while threading.active_count() > before and time.monotonic() < deadline:
        time.sleep(0.01)
    assert threading.active_count() <= before


def test_what_goes_wrong_in_a_thread_is_raised():
    with pytest.raises(IndexError):
        list(ahead(Batches(), 7, 12))
