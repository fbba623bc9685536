"""Sums over the replicas of TensorFlow's `MirroredStrategy`, one replica per device.

Each replica computes its own rows of a batch. The mean over the tokens of a batch, and the clipping
of its gradients, need sums over all replicas. On JAX the arrays themselves span all devices.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import keras
from keras import ops

from effcap.losses import CaptionLoss


def strategy_scope(model: keras.Model) -> AbstractContextManager[Any]:
    """Returns the scope of the strategy that a model was made in, for its optimizer and metrics."""
    if keras.backend.backend() != "tensorflow":
        return nullcontext()
    return model.distribute_strategy.scope()


def is_mirrored(model: keras.Model) -> bool:
    """Returns whether a model was made in a strategy with several replicas."""
    if keras.backend.backend() != "tensorflow":
        return False
    return model.distribute_strategy.num_replicas_in_sync > 1


def check_gradient_accumulation(model: keras.Model, steps: int) -> None:
    """Checks that Keras can accumulate gradients over steps: it cannot on several replicas.

    Raises:
        ValueError: the model is mirrored and `steps` is above 1.
    """
    if steps > 1 and is_mirrored(model):
        raise ValueError(
            "Expected gradient_accumulation_steps=1 on several devices under TensorFlow. Received: "
            f"gradient_accumulation_steps={steps}; use a larger batch_size, or KERAS_BACKEND=jax"
        )


def build_loss_and_metrics(model: keras.Model, batches: Sequence[Any]) -> None:
    """Builds the loss and metrics of a compiled mirrored model from the first batch.

    `fit` would build them from the mean of the replicas' inputs, which are not valid tokens.
    """
    if is_mirrored(model):
        model._symbolic_build(data_batch=batches[0])


def sum_over_replicas(values: Sequence[Any]) -> list[Any]:
    """Returns the sum of each value over all replicas; outside of a strategy, the values."""
    if keras.backend.backend() != "tensorflow":
        return list(values)
    import tensorflow as tf

    context = tf.distribute.get_replica_context()
    if context is None or context.num_replicas_in_sync == 1:
        return list(values)
    return context.all_reduce(tf.distribute.ReduceOp.SUM, list(values))


@keras.saving.register_keras_serializable("effcap")
class ReplicatedCaptionLoss(CaptionLoss):
    """Mean cross-entropy over the real tokens of all replicas; without replicas, a `CaptionLoss`.

    Each replica's loss is its part of the mean, so that the gradients sum to the mean's gradient.

    Args:
        label_smoothing: fraction of the target probability spread over all tokens.
        name: name of the loss.
        **kwargs: arguments of `keras.losses.Loss`; the reduction is "sum" by default.
    """

    def __init__(
        self, label_smoothing: float = 0.0, name: str = "caption_loss", **kwargs: Any
    ) -> None:
        kwargs.setdefault("reduction", "sum")
        super().__init__(label_smoothing, name, **kwargs)

    def __call__(self, y_true: Any, y_pred: Any, sample_weight: Any) -> Any:
        """Returns the scalar loss of targets (B, T), logits (B, T, V) and weights (B, T)."""
        total = super().__call__(y_true, y_pred, sample_weight)  # ()
        num_tokens = ops.sum(ops.cast(sample_weight, total.dtype))  # ()
        return ops.divide_no_nan(total, sum_over_replicas([num_tokens])[0])  # ()
