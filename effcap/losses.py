"""Caption loss: cross-entropy over real tokens."""

from __future__ import annotations

from typing import Any

import keras
from keras import ops


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
    including the end-of-text token.

    Args:
        label_smoothing: fraction of the target's probability distributed over all tokens
            (Szegedy et al., 2016), from 0 up to but not including 1.

    Call arguments:
        y_true: (B, T) target tokens.
        y_pred: (B, T, V) logits.
        sample_weight: (B, T), 1 for real tokens and 0 for padding.

    Raises:
        ValueError: `label_smoothing` is out of range.
    """

    def __init__(self, label_smoothing: float = 0.0, name: str = "caption_loss", **kwargs: Any):
        kwargs.setdefault("reduction", "mean_with_sample_weight")
        kwargs.setdefault("dtype", "float32")  # Keras casts targets to it; float16 loses large ids
        super().__init__(name=name, **kwargs)
        if not 0 <= label_smoothing < 1:
            raise ValueError(
                "Expected label_smoothing from 0 up to but not including 1. "
                f"Received: label_smoothing={label_smoothing}"
            )
        self.label_smoothing = label_smoothing

    def call(self, y_true: Any, y_pred: Any) -> Any:
        """Computes the loss per token (B, T)."""
        return cross_entropy(y_true, y_pred, self.label_smoothing)

    def get_config(self) -> dict[str, Any]:
        """Returns the configuration for serialization."""
        return {**super().get_config(), "label_smoothing": self.label_smoothing}
