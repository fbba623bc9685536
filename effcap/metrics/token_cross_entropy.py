"""How well captions are predicted, exactly."""

from __future__ import annotations

import keras
from keras import ops

from effcap.losses import cross_entropy


@keras.saving.register_keras_serializable("effcap")
class TokenCrossEntropy(keras.metrics.Metric):
    """Cross-entropy per real token, in nats, over all tokens since the last reset.

    (Keras's own mean first divides the sums of a batch by its row length, so that a token counts
    for less the longer the row it stands in.)

    Call arguments:
        y_true: (B, T) target tokens.
        y_pred: (B, T, V) logits.
        sample_weight: (B, T), 1 for real tokens and 0 for padding.
    """

    def __init__(self, name: str = "cross_entropy", **kwargs):
        super().__init__(name=name, **kwargs)
        self.total = self.add_variable((), "zeros", name="total")
        self.count = self.add_variable((), "zeros", name="count")

    def update_state(self, y_true, y_pred, sample_weight):
        weights = ops.cast(sample_weight, self.dtype)  # (B,T)
        losses = ops.cast(cross_entropy(y_true, y_pred), self.dtype)  # (B,T)
        self.total.assign_add(ops.sum(losses * weights))
        self.count.assign_add(ops.sum(weights))

    def result(self):
        return ops.divide_no_nan(self.total, self.count)
