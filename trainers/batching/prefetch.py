"""Batches on their way into `fit`: any part of an epoch, in order, prepared ahead in threads."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

import keras
import numpy as np

if TYPE_CHECKING:
    from effcap.trainers.batching.packed import PackedBatches


def feed(batches: PackedBatches, first: int = 0, last: int | None = None) -> Any:
    """Batches number `first` to `last` - 1 of the epoch that is laid out, for `fit` or `evaluate`.

    Whatever part it is, the compiled step is the same: under TensorFlow, Keras would take from the
    first two batches which axes vary, and a part may begin with two of one length.
    """
    last = len(batches) if last is None else last
    if keras.backend.backend() != "tensorflow":
        return _Part(batches, first, last)
    import tensorflow as tf

    dataset = tf.data.Dataset.from_generator(
        lambda: ahead(batches, first, last),
        output_signature=keras.tree.map_structure(_signature, batches[first]),
    )
    options = tf.data.Options()  # several devices share each batch, not the batches
    options.experimental_distribute.auto_shard_policy = tf.data.experimental.AutoShardPolicy.OFF
    dataset = dataset.with_options(options)
    return dataset.apply(tf.data.experimental.assert_cardinality(last - first))


class _Part(keras.utils.PyDataset):
    """Some batches of others, one after the other; Keras's own threads would not keep to it."""

    def __init__(self, batches: PackedBatches, first: int, last: int):
        super().__init__(workers=1)
        self.batches, self.first, self.last = batches, first, last
        self.next, self.stream = 0, ahead(batches, first, last)

    def __len__(self) -> int:
        return self.last - self.first

    def __getitem__(self, index: int):
        if index != self.next:  # Keras looks at the first batch before it begins
            self.stream.close()
            self.next, self.stream = index, ahead(self.batches, self.first + index, self.last)
        self.next += 1
        return next(self.stream)


def ahead(batches: PackedBatches, first: int, last: int) -> Iterator[Any]:
    """The batches in order, each begun while others before it are still in use."""
    pool = ThreadPoolExecutor(batches.workers)
    waiting: deque = deque()
    try:
        for number in range(first, last):
            waiting.append(pool.submit(batches.__getitem__, number))
            if len(waiting) > batches.max_queue_size:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()
    finally:
        pool.shutdown(cancel_futures=True)


def _signature(array: np.ndarray):
    """Rows and tokens vary; images and features do not."""
    import tensorflow as tf

    shape = (None, None) if array.ndim == 2 else (None, *array.shape[1:])
    return tf.TensorSpec(shape, array.dtype)
