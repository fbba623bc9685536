"""The loss of captions: cross-entropy over real tokens."""

from __future__ import annotations

import keras
from keras import ops


def cross_entropy(y_true, y_pred, label_smoothing: float = 0.0):
    """Cross-entropy per token (B, T), in nats; arguments as in `CaptionLoss`."""
    targets = ops.cast(y_true, "int32")  # (B,T)
    # One kernel for loss and gradient on TensorFlow, where a gather's gradient is slow.
    if not label_smoothing:
        return ops.sparse_categorical_crossentropy(targets, y_pred, from_logits=True)  # (B,T)
    size = y_pred.shape[-1]
    spread = ops.one_hot(targets, size, dtype=y_pred.dtype)  # (B,T,V)
    spread = (1 - label_smoothing) * spread + label_smoothing / size
    return ops.categorical_crossentropy(spread, y_pred, from_logits=True)  # (B,T)


@keras.saving.register_keras_serializable("effcap")
class CaptionLoss(keras.losses.Loss):
    """Mean cross-entropy per real token, in nats.

    Which tokens are real is said by the sample weights (B, T), never by ids: padding may hold any
    token, the end-of-text too.

    Args:
        label_smoothing: share of the target's probability spread evenly over all tokens
            (Szegedy et al., 2016), from 0 up to but not including 1.

    Call arguments:
        y_true: (B, T) target tokens.
        y_pred: (B, T, V) logits.
        sample_weight: (B, T), 1 for real tokens and 0 for padding.
    """

    def __init__(self, label_smoothing: float = 0.0, name: str = "caption_loss", **kwargs):
        kwargs.setdefault("reduction", "mean_with_sample_weight")
        kwargs.setdefault("dtype", "float32")  # Keras casts targets to it, and ids must survive
        super().__init__(name=name, **kwargs)
        if not 0 <= label_smoothing < 1:
            raise ValueError(
                "Expected label_smoothing from 0 up to but not including 1. "
                f"Received: label_smoothing={label_smoothing}"
            )
        self.label_smoothing = label_smoothing

    def call(self, y_true, y_pred):
        """Loss per token (B, T)."""
        return cross_entropy(y_true, y_pred, self.label_smoothing)

    def get_config(self) -> dict:
        return {**super().get_config(), "label_smoothing": self.label_smoothing}
