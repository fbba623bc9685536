"""Losses of captioners: means over real tokens."""

from __future__ import annotations

from typing import Any

import keras
from keras import ops

from effcap.utils.replicas import sum_over_replicas

ZERO_ADVANTAGE = 1e-30  # weight of a token in an `AdvantageLoss` in place of 0


def cross_entropy(y_true: Any, y_pred: Any, label_smoothing: float = 0.0) -> Any:
    """Computes the cross-entropy per token (B, T), in nats.

    Args:
        y_true: (B, T) target tokens.
        y_pred: (B, T, V) logits.
        label_smoothing: as in `CaptionLoss`.
    """
    targets = ops.cast(y_true, "int32")  # (B, T)
    # On TensorFlow one kernel computes loss and gradient; the gradient of a gather is slow.
    if not label_smoothing:
        return ops.sparse_categorical_crossentropy(targets, y_pred, from_logits=True)  # (B, T)
    size = y_pred.shape[-1]
    smoothed = ops.one_hot(targets, size, dtype=y_pred.dtype)  # (B, T, V)
    smoothed = (1 - label_smoothing) * smoothed + label_smoothing / size
    return ops.categorical_crossentropy(smoothed, y_pred, from_logits=True)  # (B, T)


@keras.saving.register_keras_serializable("effcap")
class CaptionLoss(keras.losses.Loss):
    """Mean cross-entropy per real token, in nats.

    The sample weights (B, T) mark the real tokens, not the ids: padding may be any token,
    including the end-of-text token. On several TensorFlow devices, each computes its part of the
    mean over the tokens of all, so that the gradients add up to the gradient of the mean.

    Args:
        label_smoothing: fraction of the target's probability distributed over all tokens
            (Szegedy et al., 2016), from 0 up to but not including 1.

    Call arguments:
        y_true: (B, T) target tokens.
        y_pred: (B, T, V) logits.
        sample_weight: (B, T), 1 for real tokens and 0 for padding. Default 1 everywhere.

    Raises:
        ValueError: `label_smoothing` is out of range.
    """

    def __init__(self, label_smoothing: float = 0.0, name: str = "caption_loss") -> None:
        # Keras casts targets to the dtype of the loss, and float16 has no large token ids.
        super().__init__(name, reduction="sum", dtype="float32")
        if not 0 <= label_smoothing < 1:
            raise ValueError(
                "Expected label_smoothing from 0 up to but not including 1. "
                f"Received: label_smoothing={label_smoothing}"
            )
        self.label_smoothing = label_smoothing

    def __call__(self, y_true: Any, y_pred: Any, sample_weight: Any = None) -> Any:
        """Computes the loss, a scalar."""
        total = super().__call__(y_true, y_pred, sample_weight)  # ()
        num_tokens = sum_over_replicas([self.normalizer(y_true, sample_weight)])[0]  # ()
        return ops.divide_no_nan(total, num_tokens)

    def call(self, y_true: Any, y_pred: Any) -> Any:
        """Computes the loss per token (B, T)."""
        return cross_entropy(y_true, y_pred, self.label_smoothing)

    def normalizer(self, y_true: Any, sample_weight: Any) -> Any:
        """Computes the number of real tokens, which the sum of the losses is divided by."""
        weights = ops.ones_like(y_true) if sample_weight is None else sample_weight  # (B, T)
        return ops.sum(ops.cast(weights, "float32"))

    def get_config(self) -> dict[str, Any]:
        """Returns the configuration for serialization."""
        return {"name": self.name, "label_smoothing": self.label_smoothing}


@keras.saving.register_keras_serializable("effcap")
class AdvantageLoss(CaptionLoss):
    """Mean over tokens of advantage times negative log-probability.

    The sample weights (B, T) are advantages, of either sign. A weight of 0 marks padding; tokens
    whose advantage is 0 have the weight `ZERO_ADVANTAGE`.
    """

    def normalizer(self, y_true: Any, sample_weight: Any) -> Any:
        """Computes the number of tokens that are not padding."""
        return ops.cast(ops.count_nonzero(sample_weight), "float32")
