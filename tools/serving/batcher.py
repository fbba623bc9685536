"""Collects photos of concurrent requests into batches for one worker thread."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Hashable, Sequence
from concurrent.futures import Future
from typing import Any, NamedTuple


class QueueFull(Exception):
    """There is no room in the queue for the items of a request."""


class QueueClosed(Exception):
    """The server is shutting down and takes no further items."""


class _Entry(NamedTuple):
    key: Hashable
    item: Any
    result: Future


class Batcher:
    """Runs items in batches of equal keys, the oldest item first, in a thread of its own.

    A batch starts as soon as the worker is free, with what waits at that time: a single item is
    never delayed. Items whose future was cancelled while they waited are dropped.

    Args:
        run: `run(key, items) -> results`, called by the worker thread with 1 to `batch_size` items.
        batch_size: maximum number of items per batch.
        queue_size: maximum number of items that wait.
    """

    def __init__(
        self,
        run: Callable[[Any, list[Any]], Sequence[Any]],
        batch_size: int,
        queue_size: int,
    ) -> None:
        self._run, self._batch_size, self._queue_size = run, batch_size, queue_size
        self._waiting: deque[_Entry] = deque()
        self._changed = threading.Condition()
        self._closed = False
        self._running = 0
        self._worker = threading.Thread(target=self._work, name="batcher", daemon=True)
        self._worker.start()

    @property
    def num_waiting(self) -> int:
        """Number of items that wait for a batch."""
        with self._changed:
            self._drop_cancelled()
            return len(self._waiting)

    @property
    def num_running(self) -> int:
        """Number of items in the batch that runs."""
        return self._running

    def submit(self, key: Hashable, items: Sequence[Any]) -> list[Future]:
        """Adds all items of a request, or none.

        Args:
            key: items with equal keys share batches.
            items: items of the request.

        Returns:
            A future for each item. Cancel it to drop the item.

        Raises:
            QueueFull: fewer places are free than there are items.
            QueueClosed: `close` was called.
        """
        with self._changed:
            if self._closed:
                raise QueueClosed
            self._drop_cancelled()
            if len(self._waiting) + len(items) > self._queue_size:
                raise QueueFull
            entries = [_Entry(key, item, Future()) for item in items]
            self._waiting.extend(entries)
            self._changed.notify()
        return [entry.result for entry in entries]

    def close(self, timeout: float | None = None) -> bool:
        """Takes no further items, and waits until those that wait are done.

        Args:
            timeout: seconds to wait; then the items that still wait are cancelled.

        Returns:
            Whether all items were done in time.
        """
        with self._changed:
            self._closed = True
            self._changed.notify()
        self._worker.join(timeout)
        with self._changed:
            for entry in self._waiting:
                entry.result.cancel()
        return not self._worker.is_alive()

    def join(self) -> None:
        """Waits until the batch that runs is done, after `close`."""
        self._worker.join()

    def _drop_cancelled(self) -> None:
        if any(entry.result.cancelled() for entry in self._waiting):
            self._waiting = deque(e for e in self._waiting if not e.result.cancelled())

    def _work(self) -> None:
        """Runs batches until the batcher is closed and nothing waits."""
        while batch := self._next_batch():
            self._running = len(batch)
            try:
                results = self._run(batch[0].key, [entry.item for entry in batch])
                for entry, result in zip(batch, results, strict=True):
                    entry.result.set_result(result)
            except BaseException as error:  # the requests report it, and the worker continues
                for entry in batch:
                    if not entry.result.done():
                        entry.result.set_exception(error)
            self._running = 0

    def _next_batch(self) -> list[_Entry]:
        """Waits for items and takes the next batch; returns an empty one if there will be none."""
        with self._changed:
            while True:
                self._drop_cancelled()
                if self._waiting:
                    batch = self._take_batch()
                    if batch:
                        return batch
                elif self._closed:
                    return []
                else:
                    self._changed.wait()

    def _take_batch(self) -> list[_Entry]:
        key = self._waiting[0].key
        batch: list[_Entry] = []
        others: deque[_Entry] = deque()
        for entry in self._waiting:
            if entry.key != key or len(batch) == self._batch_size:
                others.append(entry)
            elif entry.result.set_running_or_notify_cancel():
                batch.append(entry)
        self._waiting = others
        return batch
