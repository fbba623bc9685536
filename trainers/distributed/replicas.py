"""What TensorFlow's `MirroredStrategy` leaves to do: sums over the devices of one host.

Each device computes its rows of a batch by itself. A mean over the tokens of a batch, and a limit
on the norm of its gradient, need sums over all of them. On JAX the arrays themselves span devices.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import keras
from keras import ops

from effcap.losses import CaptionLoss


def scope_of(model: keras.Model) -> AbstractContextManager:
    """What else a model is trained with must be made in: the strategy it was made in itself."""
    if keras.backend.backend() != "tensorflow":
        return nullcontext()
    return model.distribute_strategy.scope()


def is_mirrored(model: keras.Model) -> bool:
    """Whether it was made in a strategy of several devices."""
    if keras.backend.backend() != "tensorflow":
        return False
    return model.distribute_strategy.num_replicas_in_sync > 1


def check_accumulation(model: keras.Model, steps: int) -> None:
    """Raises a ValueError for gradients of several steps, which Keras cannot sum in a strategy."""
    if steps > 1 and is_mirrored(model):
        raise ValueError(
            "Expected gradient_accumulation=1 on several devices under TensorFlow. Received: "
            f"gradient_accumulation={steps}; use a larger batch_size, or KERAS_BACKEND=jax"
        )


def build_losses(model: keras.Model, batches: Sequence[Any]) -> None:
    """Builds the loss and metrics of a compiled model that is mirrored, from one of the batches.

    `fit` would do so from the mean of what the devices are to see, and that of tokens is no token.
    """
    if is_mirrored(model):
        model._symbolic_build(data_batch=batches[0])


def sum_over_devices(values: Sequence[Any]) -> list[Any]:
    """The sum of each value over the devices; outside of a strategy, the values themselves."""
    if keras.backend.backend() != "tensorflow":
        return list(values)
    import tensorflow as tf

    context = tf.distribute.get_replica_context()
    if context is None or context.num_replicas_in_sync == 1:
        return list(values)
    return context.all_reduce(tf.distribute.ReduceOp.SUM, list(values))


@keras.saving.register_keras_serializable("effcap")
class JointCaptionLoss(CaptionLoss):
    """`CaptionLoss` as the mean over the real tokens of all devices; on one it is the same.

    Each device's loss is its share of the mean, so that their gradients add up to the mean's.
    """

    def __init__(self, label_smoothing: float = 0.0, name: str = "caption_loss", **kwargs):
        kwargs.setdefault("reduction", "sum")
        super().__init__(label_smoothing, name, **kwargs)

    def __call__(self, y_true, y_pred, sample_weight):
        total = super().__call__(y_true, y_pred, sample_weight)
        tokens = ops.sum(ops.cast(sample_weight, total.dtype))
        return ops.divide_no_nan(total, sum_over_devices([tokens])[0])
