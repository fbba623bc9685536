"""Sums and batches over the replicas of TensorFlow's `MirroredStrategy`, one replica per device.

Each replica computes its own rows of a batch, and Keras adds up their gradients. The mean over the
tokens of a batch needs sums over all replicas, and a comparison of all photos of a batch needs all
rows. On JAX the arrays themselves span all devices.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import keras


def is_mirrored(model: keras.Model) -> bool:
    """Returns whether a model was made in a strategy with several replicas."""
    if keras.backend.backend() != "tensorflow":
        return False
    return model.distribute_strategy.num_replicas_in_sync > 1


def has_replicas() -> bool:
    """Returns whether the step that is being traced runs on several replicas."""
    return _replica_context() is not None


def strategy_scope(model: keras.Model) -> AbstractContextManager[Any]:
    """Returns the scope of the strategy that a model was made in, for variables created later."""
    if keras.backend.backend() != "tensorflow":
        return nullcontext()
    return model.distribute_strategy.scope()


def sum_over_replicas(values: Sequence[Any]) -> list[Any]:
    """Returns the sum of each value over all replicas; outside of a strategy, the values."""
    context = _replica_context()
    if context is None:
        return list(values)
    import tensorflow as tf

    return context.all_reduce(tf.distribute.ReduceOp.SUM, list(values))


def gather_over_replicas(values: Sequence[Any]) -> list[Any]:
    """Returns each value (B, ...) with the rows of all replicas; outside of a strategy, the values.

    Gradients flow to the rows of every replica.
    """
    context = _replica_context()
    if context is None:
        return list(values)
    return [context.all_gather(value, axis=0) for value in values]  # one by one, for the gradients


def _replica_context() -> Any:
    """Returns TensorFlow's replica context; None unless there are several replicas."""
    if keras.backend.backend() != "tensorflow":
        return None
    import tensorflow as tf

    context = tf.distribute.get_replica_context()
    return None if context is None or context.num_replicas_in_sync == 1 else context
