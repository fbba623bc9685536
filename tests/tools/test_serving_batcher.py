"""Batches of concurrent requests."""

from __future__ import annotations

import threading
import time

import pytest

from effcap.tools.serving.batcher import Batcher, QueueClosed, QueueFull


class Worker:
    """Notes the batches; runs them when `proceed` is set."""

    def __init__(self) -> None:
        self.batches: list[tuple] = []
        self.proceed = threading.Event()
        self.started = threading.Event()

    def __call__(self, key, items):
        self.batches.append((key, list(items)))
        self.started.set()
        assert self.proceed.wait(10)
        if "fail" in items:
            raise ValueError("failed")
        return [f"{key}{item}" for item in items]


@pytest.fixture
def worker():
    return Worker()


@pytest.fixture
def batcher(worker):
    """A batcher whose worker is busy with an item "first"."""
    made = Batcher(worker, batch_size=3, queue_size=6)
    made.submit("k", ["first"])
    assert worker.started.wait(10)
    yield made
    worker.proceed.set()
    assert made.close(10)


def results(futures):
    return [future.result(10) for future in futures]


def test_requests_that_wait_share_batches_of_the_same_key(batcher, worker):
    a, b, c = batcher.submit("k", [1, 2]), batcher.submit("m", [3]), batcher.submit("k", [4, 5])
    worker.proceed.set()
    assert results(a) == ["k1", "k2"] and results(b) == ["m3"] and results(c) == ["k4", "k5"]
    assert worker.batches[1:] == [("k", [1, 2, 4]), ("m", [3]), ("k", [5])]


def test_a_single_item_does_not_wait_for_others():
    batcher = Batcher(lambda key, items: items, batch_size=8, queue_size=8)
    assert results(batcher.submit("k", ["only"])) == ["only"]
    assert batcher.close(10)


def test_a_request_that_does_not_fit_is_refused_as_a_whole(batcher):
    batcher.submit("k", [1, 2, 3, 4])
    with pytest.raises(QueueFull):
        batcher.submit("k", [5, 6, 7])
    assert batcher.num_waiting == 4
    batcher.submit("k", [5, 6])


def test_cancelled_items_are_dropped_and_make_room(batcher, worker):
    kept, dropped = batcher.submit("k", [1]), batcher.submit("k", [2, 3, 4, 5, 6])
    for future in dropped:
        future.cancel()
    assert batcher.num_waiting == 1
    batcher.submit("k", [7])
    worker.proceed.set()
    assert results(kept) == ["k1"]
    assert worker.batches[1] == ("k", [1, 7])


def test_an_error_reaches_its_batch_only(batcher, worker):
    failing, other = batcher.submit("k", ["fail", 1]), batcher.submit("m", [2])
    worker.proceed.set()
    for future in failing:
        with pytest.raises(ValueError, match="failed"):
            future.result(10)
    assert results(other) == ["m2"]


def test_closing_finishes_what_waits_and_refuses_more(worker):
    batcher = Batcher(worker, batch_size=1, queue_size=8)
    futures = batcher.submit("k", [1, 2, 3])
    closing = threading.Thread(target=batcher.close)
    closing.start()
    while not batcher._closed:
        time.sleep(0.001)
    with pytest.raises(QueueClosed):
        batcher.submit("k", [4])
    worker.proceed.set()
    closing.join(10)
    assert results(futures) == ["k1", "k2", "k3"]


def test_closing_in_time_cancels_what_waits(batcher, worker):
    waiting = batcher.submit("k", [1, 2])
    assert not batcher.close(0.01)
    assert all(future.cancelled() for future in waiting)


def test_many_threads_lose_and_mix_nothing():
    batcher = Batcher(lambda key, items: [(key, item) for item in items], 8, 10_000)
    found: dict = {}

    def client(number: int) -> None:
        key = number % 3
        found[number] = results(batcher.submit(key, [(number, i) for i in range(20)]))

    threads = [threading.Thread(target=client, args=(n,)) for n in range(50)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(20)
    assert found == {n: [(n % 3, (n, i)) for i in range(20)] for n in range(50)}
    assert batcher.close(10)
