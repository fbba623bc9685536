"""Sums over the replicas of TensorFlow's `MirroredStrategy`, one replica per device.

Each replica computes its own rows of a batch, and Keras adds up their gradients. The mean over the
tokens of a batch needs sums over all replicas. On JAX the arrays themselves span all devices.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import keras


def is_mirrored(model: keras.Model) -> bool:
    """Returns whether a model was made in a strategy with several replicas."""
    if keras.backend.backend() != "tensorflow":
        return False
    return model.distribute_strategy.num_replicas_in_sync > 1


def sum_over_replicas(values: Sequence[Any]) -> list[Any]:
    """Returns the sum of each value over all replicas; outside of a strategy, the values."""
    if keras.backend.backend() != "tensorflow":
        return list(values)
    import tensorflow as tf

    context = tf.distribute.get_replica_context()
    if context is None or context.num_replicas_in_sync == 1:
        return list(values)
    return context.all_reduce(tf.distribute.ReduceOp.SUM, list(values))
