"""Losses and accumulated gradients as means over tokens, whatever the sizes of the batches."""

from __future__ import annotations

from typing import Any

import keras
from keras import ops

from effcap.fused_adam import fuse
from effcap.losses import CaptionLoss
from effcap.npair import NPairLoss
from effcap.optimizers import accumulate_by_tokens
from effcap.utils.graph_rewriting import without_graph_rewriting
from effcap.utils.replicas import is_mirrored, strategy_scope, sum_over_replicas


class TokenMeanModel(keras.Model):
    """A model that trains on means over tokens.

    Keras weights each batch by its rows in the loss that `fit` and `evaluate` report, and each
    batch equally in accumulated gradients. Here both are weighted by tokens, so N accumulated
    batches are equal to one batch N times as large.

    A model that trains with an `NPairLoss` has the metric "npair", the n-pair loss without its
    weight. Evaluation does not compute it.
    """

    npair_mean: keras.metrics.Mean | None = None
    is_evaluating = False
    train_function: Any
    test_function: Any

    def compile(self, optimizer: Any, loss: Any, **kwargs: Any) -> None:
        """Configures training as `keras.Model.compile` does.

        Raises:
            ValueError: the optimizer accumulates gradients on several devices under TensorFlow.
        """
        super().compile(optimizer, loss, **kwargs)
        fuse(self._inner_optimizer)
        self.token_loss = keras.metrics.Mean("loss")
        self.npair_mean = keras.metrics.Mean("npair") if isinstance(loss, NPairLoss) else None
        accumulating = self._accumulating_optimizer
        if accumulating is not None:
            if is_mirrored(self):
                raise ValueError(
                    "Expected gradient_accumulation_steps=1 on several devices under TensorFlow. "
                    f"Received: {accumulating.gradient_accumulation_steps}; use a larger batch "
                    "size, or KERAS_BACKEND=jax"
                )
            accumulate_by_tokens(accumulating)

    def make_train_function(self, force: bool = False) -> Any:
        """Makes the compiled step; the optimizer is built before, so that it is traced once."""
        optimizer = self.optimizer
        if optimizer is not None and not optimizer.built:
            with strategy_scope(self):
                optimizer.build(self.trainable_variables)
        if force or self.train_function is None:
            super().make_train_function(force)
            self.train_function = without_graph_rewriting(self.train_function)

    def make_test_function(self, force: bool = False) -> Any:
        """Makes the compiled step of `evaluate`."""
        if force or self.test_function is None:
            super().make_test_function(force)
            self.test_function = without_graph_rewriting(self.test_function)

    @property
    def metrics(self) -> list[keras.metrics.Metric]:
        """Metrics of `fit` and `evaluate`: the loss per token first, then the n-pair loss."""
        others = [metric for metric in super().metrics if metric.name not in ("loss", "npair")]
        if not self.compiled:
            return others
        has_npair = self.npair_mean is not None and not self.is_evaluating
        return [self.token_loss, *([self.npair_mean] if has_npair else []), *others]

    def evaluate(self, *arguments: Any, **options: Any) -> Any:
        """Computes the metrics of data, as `keras.Model.evaluate` does."""
        self.is_evaluating = True
        try:
            return super().evaluate(*arguments, **options)
        finally:
            self.is_evaluating = False

    def compute_loss(
        self,
        x: Any = None,
        y: Any = None,
        y_pred: Any = None,
        sample_weight: Any = None,
        training: bool = True,
    ) -> Any:
        """Computes the loss of a batch, and adds it to the mean that `fit` reports."""
        loss = self.batch_loss(x, y, y_pred, sample_weight, training)  # ()
        self.add_to_mean(self.token_loss, loss, y, sample_weight)
        return loss

    def add_to_mean(self, mean: keras.metrics.Mean, loss: Any, y: Any, sample_weight: Any) -> None:
        """Adds the loss of a batch, or a part of it, to a mean over tokens."""
        values = [self._normalizer(y, sample_weight), ops.convert_to_tensor(1.0)]
        num_tokens, num_replicas = sum_over_replicas(values)
        # The loss of a replica is its part of the mean, and metrics are summed over replicas.
        mean.update_state(loss * num_replicas, num_tokens / num_replicas)

    def batch_loss(
        self, x: Any, y: Any, y_pred: Any, sample_weight: Any, training: bool = True
    ) -> Any:
        """Computes the loss of a batch, as `keras.Model.compute_loss` does."""
        return super().compute_loss(x, y, y_pred, sample_weight, training)

    def train_step(self, *arguments: Any) -> Any:
        """Trains on one batch, as `keras.Model.train_step` does."""
        optimizer = self._accumulating_optimizer
        if optimizer is None:
            return super().train_step(*arguments)
        *states, data = arguments  # JAX passes the values of all variables as well
        _, y, sample_weight = keras.utils.unpack_x_y_sample_weight(data)
        num_tokens = self._normalizer(y, sample_weight)
        if not states:
            optimizer.num_tokens.assign(num_tokens)
            return super().train_step(data)
        trainable, non_trainable, values, metrics = states[0]
        values = [
            num_tokens if variable is optimizer.num_tokens else value
            for variable, value in zip(self.optimizer.variables, values, strict=True)
        ]
        return super().train_step((trainable, non_trainable, values, metrics), data)

    @property
    def _inner_optimizer(self) -> Any:
        """The optimizer, without the wrapper that scales the loss of float16."""
        return getattr(self.optimizer, "inner_optimizer", self.optimizer)

    @property
    def _accumulating_optimizer(self) -> Any:
        """The optimizer, if it accumulates gradients."""
        optimizer = self._inner_optimizer
        return optimizer if getattr(optimizer, "gradient_accumulation_steps", None) else None

    def _normalizer(self, y: Any, sample_weight: Any) -> Any:
        loss = self.loss if isinstance(self.loss, CaptionLoss) else CaptionLoss()
        return loss.normalizer(y, sample_weight)
