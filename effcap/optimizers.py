"""Optimizers: AdamW for captioners, and gradients accumulated by tokens."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import keras
from keras import ops

from effcap.fused_adam import FusedAdam, change_class
from effcap.utils.replicas import sum_over_replicas


class TokenAccumulation(keras.optimizers.Optimizer):
    """Weights accumulated gradients by tokens; mixed into the class of an optimizer.

    It has no effect before `accumulate_by_tokens`, which creates the variables.

    Attributes:
        num_tokens: scalar variable, the tokens of the step whose gradients are applied next.
        total_tokens: scalar variable, the tokens of the gradients accumulated so far.
    """

    num_tokens: Any = None
    total_tokens: Any = None

    def apply(self, grads: Any, trainable_variables: Any = None) -> None:
        """Adds the gradients of the mean over `num_tokens`; updates the weights if it is time."""
        if self.num_tokens is None:
            super().apply(grads, trainable_variables)
            return
        total = self.total_tokens + self.num_tokens  # ()
        self.total_tokens.assign(total)
        weighted = [None if g is None else g * ops.cast(self.num_tokens, g.dtype) for g in grads]
        super().apply(weighted, trainable_variables)
        is_update = self._iterations % self.gradient_accumulation_steps == 0
        self.total_tokens.assign(ops.where(is_update, 0.0, total))

    def _clip_gradients(self, grads: Any) -> Any:
        """Clips the mean over tokens; `grads` is the sum over tokens divided by the steps."""
        if self.num_tokens is None:
            return super()._clip_gradients(grads)
        scale = ops.divide_no_nan(float(self.gradient_accumulation_steps), self.total_tokens)
        return super()._clip_gradients([g * ops.cast(scale, g.dtype) for g in grads])


def accumulate_by_tokens(optimizer: keras.optimizers.Optimizer) -> None:
    """Changes an optimizer with `gradient_accumulation_steps` to weight gradients by tokens.

    The change is in place, so that its state and the caller's references to it remain valid.
    """
    change_class(optimizer, TokenAccumulation)
    if optimizer.num_tokens is None:
        optimizer.num_tokens = optimizer.add_variable((), "ones", name="num_tokens")
        optimizer.total_tokens = optimizer.add_variable((), "zeros", name="total_tokens")


@keras.saving.register_keras_serializable("effcap")
class CaptionOptimizer(TokenAccumulation, FusedAdam, keras.optimizers.Adam):
    """AdamW (Loshchilov and Hutter, 2019) with learning rates and decay by variable.

    Args:
        learning_rate: a number or a schedule.
        decay: decoupled weight decay.
        no_decay: paths of the variables without weight decay.
        factors: factors of the learning rate by path of a variable; 1 for all others.
        name: name of the optimizer.
        **kwargs: arguments of `keras.optimizers.Adam`.
    """

    def __init__(
        self,
        learning_rate: Any = 1e-3,
        decay: float = 0.0,
        no_decay: Collection[str] = (),
        factors: Mapping[str, float] | None = None,
        name: str = "caption_optimizer",
        **kwargs: Any,
    ) -> None:
        super().__init__(learning_rate, name=name, **kwargs)
        self.decay, self.no_decay, self.factors = decay, sorted(no_decay), dict(factors or {})

    def build(self, variables: Sequence[keras.Variable]) -> None:
        super().build(variables)
        no_decay = set(self.no_decay)
        self._decays = [0.0 if v.path in no_decay else self.decay for v in variables]
        self._factors = [self.factors.get(v.path, 1.0) for v in variables]

    def apply(
        self, grads: Sequence[Any], trainable_variables: Sequence[keras.Variable] | None = None
    ) -> None:
        """Applies gradients summed over all replicas, because Keras would clip those of each."""
        sums = iter(sum_over_replicas([gradient for gradient in grads if gradient is not None]))
        grads = [None if gradient is None else next(sums) for gradient in grads]
        super().apply(grads, trainable_variables)

    def _all_reduce_sum_gradients(self, grads_and_vars: Any) -> Any:
        """Returns its argument, because `apply` sums the gradients before clipping."""
        return grads_and_vars

    def _rate_factor_and_decay(self, variable: Any) -> tuple[float, float]:
        index = self._get_variable_index(variable)
        _, weight_decay = super()._rate_factor_and_decay(variable)
        return self._factors[index], self._decays[index] + weight_decay

    def update_step(self, gradient: Any, variable: keras.Variable, learning_rate: Any) -> None:
        index = self._get_variable_index(variable)
        rate = ops.cast(learning_rate, variable.dtype) * self._factors[index]
        if self._decays[index]:
            self.assign_sub(variable, variable * (rate * self._decays[index]))
        super().update_step(gradient, variable, rate)

    def finalize_variable_values(self, var_list: Sequence[keras.Variable]) -> None:
        """Does nothing, because a run calls `fit` once per epoch; see `assign_averages`."""

    def assign_averages(self, model: keras.Model) -> None:
        """Replaces the model's weights by their moving averages, if there are any."""
        if not self.use_ema:
            return
        super().finalize_variable_values(model.trainable_variables)
        for variable in model.trainable_variables:
            # On JAX, weights and averages would share arrays, which training overwrites.
            variable.assign(ops.convert_to_numpy(variable))

    @contextmanager
    def averaged(self, model: keras.Model) -> Iterator[None]:
        """Replaces the weights by their averages in a `with` statement; restores them exactly."""
        if not self.use_ema:
            yield
            return
        variables = model.trainable_variables
        weights = [ops.convert_to_numpy(variable) for variable in variables]
        self.assign_averages(model)
        try:
            yield
        finally:
            for variable, value in zip(variables, weights, strict=True):
                variable.assign(value)

    def get_config(self) -> dict[str, Any]:
        config = {"decay": self.decay, "no_decay": self.no_decay, "factors": self.factors}
        return {**super().get_config(), **config}


@keras.saving.register_keras_serializable("effcap")
class LinearDecay(keras.optimizers.schedules.LearningRateSchedule):
    """Linear warmup from 0, then linear decay to 0.

    The learning rate of every step is that of transformers' `get_linear_schedule_with_warmup`; the
    first step of a warmup changes nothing.

    Args:
        learning_rate: peak learning rate, at step `warmup_steps`.
        steps: step with the learning rate 0, after the last one.
        warmup_steps: number of steps of the warmup.
    """

    def __init__(self, learning_rate: float, steps: int, warmup_steps: int = 0) -> None:
        self.learning_rate, self.steps, self.warmup_steps = learning_rate, steps, warmup_steps

    def __call__(self, step: Any) -> Any:
        step = ops.cast(step, "float32")
        rising = step / max(self.warmup_steps, 1)
        falling = (self.steps - step) / max(self.steps - self.warmup_steps, 1)
        fraction = ops.where(step < self.warmup_steps, rising, ops.maximum(falling, 0.0))
        return self.learning_rate * fraction

    def get_config(self) -> dict[str, Any]:
        """Returns the arguments of the constructor."""
        return {
            "learning_rate": self.learning_rate,
            "steps": self.steps,
            "warmup_steps": self.warmup_steps,
        }
