"""Batches for `fit`: any range of an epoch, in order, prefetched by threads."""

from __future__ import annotations

from collections import deque
from collections.abc import Generator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

import keras
import numpy as np

if TYPE_CHECKING:
    from effcap.trainers.batching.packed import Batch, PackedBatches


def as_dataset(batches: PackedBatches, first: int = 0, last: int | None = None) -> Any:
    """Returns a range of the current epoch as a dataset for `fit` or `evaluate`.

    The compiled step is the same for every range: under TensorFlow, Keras would infer from the
    first two batches which axes vary, and a range may begin with two batches of one length.

    Args:
        batches: batches whose epoch has been started.
        first: index of the first batch.
        last: index after the last batch; None for the end of the epoch.

    Returns:
        A `tf.data.Dataset` under TensorFlow, otherwise a `keras.utils.PyDataset`.
    """
    last = len(batches) if last is None else last
    if keras.backend.backend() != "tensorflow":
        return _BatchRange(batches, first, last)
    import tensorflow as tf

    dataset = tf.data.Dataset.from_generator(
        lambda: prefetch(batches, first, last),
        output_signature=keras.tree.map_structure(_signature, batches[first]),
    )
    options = tf.data.Options()  # several devices share each batch, so nothing is sharded
    options.experimental_distribute.auto_shard_policy = tf.data.experimental.AutoShardPolicy.OFF
    dataset = dataset.with_options(options)
    return dataset.apply(tf.data.experimental.assert_cardinality(last - first))


class _BatchRange(keras.utils.PyDataset):
    """A range of batches in order; one Keras worker, because several would not keep the order."""

    def __init__(self, batches: PackedBatches, first: int, last: int):
        super().__init__(workers=1)
        self.batches, self.first, self.last = batches, first, last
        self.next_index, self.stream = 0, prefetch(batches, first, last)

    def __len__(self) -> int:
        return self.last - self.first

    def __getitem__(self, index: int) -> Batch:
        if index != self.next_index:  # Keras reads the first batch once before it begins
            self.stream.close()
            self.stream = prefetch(self.batches, self.first + index, self.last)
            self.next_index = index
        self.next_index += 1
        return next(self.stream)


def prefetch(batches: PackedBatches, first: int, last: int) -> Generator[Batch, None, None]:
    """Yields batches `first` to `last` - 1 in order, while threads prepare later ones."""
    pool = ThreadPoolExecutor(batches.workers)
    pending: deque[Future[Batch]] = deque()
    try:
        for index in range(first, last):
            pending.append(pool.submit(batches.__getitem__, index))
            if len(pending) > batches.max_queue_size:
                yield pending.popleft().result()
        while pending:
            yield pending.popleft().result()
    finally:
        pool.shutdown(cancel_futures=True)


def _signature(array: np.ndarray) -> Any:
    """Returns a TensorSpec; tokens vary in both axes, images and features only in the first."""
    import tensorflow as tf

    shape = (None, None) if array.ndim == 2 else (None, *array.shape[1:])
    return tf.TensorSpec(shape, array.dtype)
