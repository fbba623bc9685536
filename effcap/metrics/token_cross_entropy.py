"""Token cross-entropy as a Keras metric."""

from __future__ import annotations

from typing import Any

import keras
from keras import ops

from effcap.losses import cross_entropy


@keras.saving.register_keras_serializable("effcap")
class TokenCrossEntropy(keras.metrics.Metric):
    """Cross-entropy per real token, in nats, over all tokens since the last reset.

    Keras's own mean divides the sums of a batch by its row length first, which gives tokens of
    longer rows less weight.

    Call arguments:
        y_true: (B, T) target tokens.
        y_pred: (B, T, V) logits.
        sample_weight: (B, T), 1 for real tokens and 0 for padding.
    """

    def __init__(self, name: str = "cross_entropy", **kwargs: Any):
        super().__init__(name=name, **kwargs)
        self.total = self.add_variable((), "zeros", name="total")
        self.count = self.add_variable((), "zeros", name="count")

    def update_state(self, y_true: Any, y_pred: Any, sample_weight: Any) -> None:
        """Adds the losses of a batch."""
        weights = ops.cast(sample_weight, self.dtype)  # (B, T)
        losses = ops.cast(cross_entropy(y_true, y_pred), self.dtype)  # (B, T)
        self.total.assign_add(ops.sum(losses * weights))
        self.count.assign_add(ops.sum(weights))

    def result(self) -> Any:
        """Returns the mean loss per real token, a scalar."""
        return ops.divide_no_nan(self.total, self.count)
