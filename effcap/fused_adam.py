"""Adam that updates each variable by one kernel where the backend has one."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import keras
from keras import ops

from effcap.utils import adam_kernel
from effcap.utils.replicas import has_replicas


class FusedAdam(keras.optimizers.Optimizer):
    """Updates by TensorFlow's kernel of Adam; mixed into `keras.optimizers.Adam` or `AdamW`.

    The updates, the state and the saved files are those of Keras. On other backends, which compile
    the operations of an update themselves, it has no effect.
    """

    def _clip_gradients(self, grads: Sequence[Any]) -> Sequence[Any]:
        """Clips gradients as Keras does; by their global norm, each in one operation."""
        if not self.global_clipnorm or not self._has_kernel:
            return super()._clip_gradients(grads)
        grads = [adam_kernel.dense(gradient) for gradient in grads]
        norm = adam_kernel.global_norm(grads)  # ()
        # NaN if the norm is not finite, instead of a scale of 0.
        scale = ops.minimum(self.global_clipnorm / norm, 1.0) + (norm - norm)
        return [gradient * ops.cast(scale, gradient.dtype) for gradient in grads]

    def _apply_weight_decay(self, variables: Sequence[Any]) -> None:
        """Leaves weight decay to `_backend_update_step` where there is a kernel."""
        if not self._has_kernel:
            super()._apply_weight_decay(variables)

    def _backend_update_step(
        self, grads: Sequence[Any], trainable_variables: Sequence[Any], learning_rate: Any
    ) -> None:
        """Updates all variables."""
        if not self._has_kernel:
            super()._backend_update_step(grads, trainable_variables, learning_rate)
            return
        grads_and_vars = zip(grads, trainable_variables, strict=True)
        rates: dict[tuple[float, float], tuple[Any, Any]] = {}
        updates = []
        for gradient, variable in self._all_reduce_sum_gradients(grads_and_vars):
            factor, decay = self._rate_factor_and_decay(variable)
            key = (factor, decay)
            if key not in rates:
                rate = ops.cast(learning_rate, "float32") * factor  # ()
                rates[key] = (rate, rate * decay if decay else None)
            index = self._get_variable_index(variable)
            updates.append(
                adam_kernel.AdamUpdate(
                    variable,
                    self._momentums[index],
                    self._velocities[index],
                    adam_kernel.dense(gradient, "float32"),
                    *rates[key],
                )
            )
        adam_kernel.apply_adam(updates, self.iterations + 1, self.beta_1, self.beta_2, self.epsilon)

    def _rate_factor_and_decay(self, variable: Any) -> tuple[float, float]:
        """Returns the factor of the learning rate and the weight decay of a variable."""
        decay = self.weight_decay if self._use_weight_decay(variable) else None
        return 1.0, decay or 0.0

    def _update_model_variables_moving_average(self, trainable_variables: Sequence[Any]) -> None:
        """Updates the moving averages as Keras does, with few operations."""
        if not self._has_kernel or has_replicas():
            super()._update_model_variables_moving_average(trainable_variables)
            return
        # The average of the first step is the weights after it.
        rate = ops.where(self.iterations == 0, 1.0, 1 - self.ema_momentum)  # ()
        averages = self._model_variables_moving_average
        for variable, average in zip(trainable_variables, averages, strict=True):
            if average is not None:
                adam_kernel.update_average(average, variable, rate)

    @property
    def _has_kernel(self) -> bool:
        return adam_kernel.is_available(self._trainable_variables) and not self.amsgrad


def fuse(optimizer: keras.optimizers.Optimizer) -> None:
    """Makes an Adam or AdamW of Keras a `FusedAdam`; leaves other optimizers as they are."""
    is_adam = type(optimizer) in (keras.optimizers.Adam, keras.optimizers.AdamW)
    if is_adam and adam_kernel.is_available():
        change_class(optimizer, FusedAdam)


def change_class(optimizer: keras.optimizers.Optimizer, mixin: type) -> None:
    """Mixes a class into that of an optimizer, unless it has it already.

    The change is in place, so that its state and the caller's references to it remain valid. Saved
    files name the original class.
    """
    cls = type(optimizer)
    if issubclass(cls, mixin):
        return
    names = {"__module__": cls.__module__, "__doc__": cls.__doc__}
    optimizer.__class__ = type(cls.__name__, (mixin, cls), names)
    package, _, name = keras.saving.get_registered_name(cls).rpartition(">")
    if package:
        keras.saving.register_keras_serializable(package, name)(type(optimizer))
        keras.saving.register_keras_serializable(package, name)(cls)
