"""Batch normalization by one kernel where the backend has one."""

from __future__ import annotations

from types import MethodType
from typing import Any

import keras
from keras import ops

KERNEL_DTYPES = ("float32", "bfloat16", "float16")


def fuse_batch_norms(network: keras.Model) -> None:
    """Makes the batch normalizations of a network use TensorFlow's kernel.

    Written with `keras.ops`, one is several operations that each pass over all features, forward
    and backward. Results, moving averages and the saved network stay the same. On other backends,
    which compile the operations themselves, nothing changes.
    """
    if keras.backend.backend() != "tensorflow":
        return
    for layer in network._flatten_layers():
        if type(layer) is keras.layers.BatchNormalization:
            # A subclass would be saved by its name.
            layer.call = MethodType(normalize, layer)


def normalize(layer: Any, inputs: Any, training: bool | None = None, mask: Any = None) -> Any:
    """Computes what the layer's own `call` does, by the kernel if it can."""
    if mask is not None or not has_kernel(layer, inputs):
        return type(layer).call(layer, inputs, training=training, mask=mask)
    import tensorflow as tf

    is_training = bool(training and layer.trainable)
    averages = (layer.moving_mean, layer.moving_variance)
    used = [tf.zeros((0,))] * 2 if is_training else [ops.cast(x, "float32") for x in averages]
    normal, mean, variance, *_ = tf.raw_ops.FusedBatchNormV3(
        x=inputs,  # (B,h,w,C)
        scale=ops.cast(layer.gamma, "float32"),
        offset=ops.cast(layer.beta, "float32"),
        mean=used[0],
        variance=used[1],
        epsilon=layer.epsilon,
        is_training=is_training,
    )  # (B,h,w,C), (C,), (C,)
    if is_training:
        # The kernel divides the squares by one less than their number.
        number = ops.cast(tf.size(inputs) // inputs.shape[-1], "float32")  # B*h*w
        for average, new in zip(averages, (mean, variance * (1 - 1 / number)), strict=True):
            average.assign(average * layer.momentum + new * (1.0 - layer.momentum))
    return ops.cast(normal, layer.compute_dtype)


def has_kernel(layer: Any, inputs: Any) -> bool:
    """Returns whether the kernel normalizes inputs as the layer does."""
    axis = layer.axis if isinstance(layer.axis, int) else layer.axis[0]
    return (
        len(inputs.shape) == 4
        and axis in (-1, 3)
        and keras.backend.standardize_dtype(inputs.dtype) in KERNEL_DTYPES
        and layer.scale
        and layer.center
        and not (getattr(layer, "renorm", False) or layer.synchronized)
    )
