"""Gradients of a function on any backend."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import keras
import numpy as np


def gradient(function: Callable[[Any], Any], x: Any) -> np.ndarray:
    """Computes the gradient of a function at x.

    Args:
        function: function of one tensor that returns a scalar, made of `keras.ops`.
        x: tensor or array of floats.

    Returns:
        The gradient, in the shape of x; zeros if the result does not depend on x.
    """
    backend = keras.backend.backend()
    x = keras.ops.convert_to_tensor(x)
    if backend == "tensorflow":
        import tensorflow as tf

        with tf.GradientTape() as tape:
            tape.watch(x)
            result = function(x)
        computed = tape.gradient(result, x)
    elif backend == "jax":
        import jax

        computed = jax.grad(function)(x)
    else:
        import torch

        x = x.detach().requires_grad_(True)
        with torch.enable_grad():
            (computed,) = torch.autograd.grad(function(x), x, allow_unused=True)
    return np.zeros(x.shape) if computed is None else keras.ops.convert_to_numpy(computed)
