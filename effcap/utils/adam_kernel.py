"""Adam by TensorFlow's kernel, which updates a whole variable at once.

Written with `keras.ops`, the update of one variable is about 45 operations that each pass over all
its values, and TensorFlow neither joins them nor traces them quickly.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import keras
import numpy as np


class AdamUpdate(NamedTuple):
    """Update of a variable of float32.

    Attributes:
        variable: variable to update.
        momentum: mean of its gradients.
        velocity: mean of their squares.
        gradient: dense gradient in float32.
        rate: learning rate.
        decay: product of learning rate and decoupled weight decay; None for no decay.
    """

    variable: keras.Variable
    momentum: keras.Variable
    velocity: keras.Variable
    gradient: Any
    rate: Any
    decay: Any = None


def is_available(variables: Sequence[keras.Variable] = ()) -> bool:
    """Returns whether there is a kernel for variables: in TensorFlow, for those of float32."""
    is_float32 = all(keras.backend.standardize_dtype(v.dtype) == "float32" for v in variables)
    return keras.backend.backend() == "tensorflow" and is_float32


def dense(gradient: Any, dtype: Any = None) -> Any:
    """Returns a gradient as a tensor; those of embeddings may be `IndexedSlices`."""
    import tensorflow as tf

    gradient = tf.convert_to_tensor(gradient)
    return gradient if dtype in (None, gradient.dtype.name) else tf.cast(gradient, dtype)


def global_norm(gradients: Sequence[Any]) -> Any:
    """Returns the norm of all dense gradients together, in the dtype of the first."""
    import tensorflow as tf

    halves = [tf.nn.l2_loss(gradient) for gradient in gradients]  # of the sums of squares
    return tf.sqrt(2 * tf.add_n([tf.cast(half, halves[0].dtype) for half in halves]))


def apply_adam(
    updates: Sequence[AdamUpdate], step: Any, beta_1: float, beta_2: float, epsilon: float
) -> None:
    """Updates variables, on each replica if there are several.

    Args:
        updates: the variables with what updates them.
        step: number of this step, from 1.
        beta_1: decay of the mean of the gradients.
        beta_2: decay of the mean of their squares.
        epsilon: number added to the root of the mean of the squares.
    """
    import tensorflow as tf

    # The kernel's 1 - beta has another rounding error than Keras's.
    correction = tf.sqrt(_mean_ratio(beta_2, step)) / _mean_ratio(beta_1, step)  # ()
    first, second, count = (tf.cast(value, "float32") for value in (beta_1, beta_2, step))
    constants = {
        "beta1": first,
        "beta2": second,
        "beta1_power": first**count,
        "beta2_power": second**count,
        "epsilon": tf.cast(epsilon, "float32"),
    }

    def update_one(variable: Any, momentum: Any, velocity: Any, *values: Any) -> None:
        gradient, rate, *decay = values
        if decay:
            variable.assign_sub(variable * decay[0])  # 1 - decay would be rounded
        tf.raw_ops.ResourceApplyAdam(
            var=variable.handle,
            m=momentum.handle,
            v=velocity.handle,
            grad=gradient,
            lr=rate * tf.cast(correction, tf.float32),
            **constants,
        )

    def update_replicas(strategy: Any, arguments: Sequence[Sequence[Any]]) -> None:
        for variable, *others in arguments:
            strategy.extended.update(variable, update_one, args=others, group=False)

    arguments = [
        [value.value if isinstance(value, keras.Variable) else value for value in update]
        for update in updates
    ]
    arguments = [values if values[-1] is not None else values[:-1] for values in arguments]
    if tf.distribute.get_strategy().num_replicas_in_sync > 1:
        tf.distribute.get_replica_context().merge_call(update_replicas, args=(arguments,))
        return
    for values in arguments:
        update_one(*values)


def _mean_ratio(beta: float, step: Any) -> Any:
    """Returns the ratio of a mean of equal values in the kernel to the one that Keras computes."""
    import tensorflow as tf

    count = tf.cast(step, "float64")
    new, keras_new = 1 - float(np.float32(beta)), float(np.float32(1 - beta))
    return (1 - (1 - new) ** count) / (1 - (1 - keras_new) ** count)


def update_average(average: keras.Variable, variable: keras.Variable, rate: Any) -> None:
    """Moves an average towards a variable by a fraction `rate` of their difference."""
    import tensorflow as tf

    average, variable = average.value, variable.value
    average.assign_sub((average - variable) * tf.cast(rate, average.dtype))
