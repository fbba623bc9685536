"""Batches that are loaded ahead in threads."""

from __future__ import annotations

import threading

import pytest

from effcap.images import load_ahead


def test_the_next_batch_is_loaded_while_the_caller_uses_one():
    taken: list[int] = []
    loaded = [threading.Event() for _ in range(7)]

    def items():
        for item in range(7):
            assert threading.current_thread() is threading.main_thread()
            taken.append(item)
            yield item

    def load(item):
        loaded[item].set()
        return -item

    batches = load_ahead(items(), load, 3)
    assert next(batches) == ([0, 1, 2], [0, -1, -2])
    assert all(event.wait(10) for event in loaded[:6])  # without another call
    assert taken == [*range(6)]  # and no more than that
    assert list(batches) == [([3, 4, 5], [-3, -4, -5]), ([6], [-6])]
    assert list(load_ahead([], load, 3)) == []


def test_loading_ahead_raises_after_earlier_batches():
    def load(item):
        return 1 / item

    before, batches = threading.active_count(), load_ahead([1, 2, 0, 4, 5], load, 2)
    assert next(batches) == ([1, 2], [1, 0.5])
    with pytest.raises(ZeroDivisionError):
        next(batches)
    assert threading.active_count() == before
