"""The functions of `keras.ops` that samplers use, on NumPy arrays.

Names, arguments and dtypes are those of `keras.ops`: integers are int32 and numbers float32.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

Axis = int | None
BLOCK = 64
FEW = 256  # entries of a row that are sorted as a whole

any = np.any
all = np.all
bitwise_and = np.bitwise_and
bitwise_or = np.bitwise_or
bitwise_xor = np.bitwise_xor
broadcast_to = np.broadcast_to
clip = np.clip
concatenate = np.concatenate
convert_to_numpy = np.asarray
exp = np.exp
expand_dims = np.expand_dims
full_like = np.full_like
logical_and = np.logical_and
logical_not = np.logical_not
logical_or = np.logical_or
max = np.max
maximum = np.maximum
min = np.min
minimum = np.minimum
ones_like = np.ones_like
repeat = np.repeat
reshape = np.reshape
shape = np.shape
sort = np.sort
stack = np.stack
swapaxes = np.swapaxes
take_along_axis = np.take_along_axis


def convert_to_tensor(x: Any, dtype: Any = None) -> np.ndarray:
    """Returns an array; floats without a dtype of their own are float32, and integers int32."""
    array = np.asarray(x, dtype)
    if dtype is None and not hasattr(x, "dtype") and array.dtype.itemsize == 8:
        array = array.astype("int32" if array.dtype.kind == "i" else "float32")
    return array


def cast(x: Any, dtype: Any) -> np.ndarray:
    """Returns x in a dtype; x itself if it has that already."""
    return np.asarray(x).astype(dtype, copy=False)


def arange(start: int, stop: int | None = None, dtype: Any = "int32") -> np.ndarray:
    """Returns the integers from `start`, or 0, up to but not including the last argument."""
    return np.arange(start, stop, dtype=dtype)


def zeros(shape: Sequence[int], dtype: Any = "float32") -> np.ndarray:
    """Returns an array of zeros."""
    return np.zeros(shape, dtype)


def full(shape: Sequence[int], value: Any, dtype: Any = "float32") -> np.ndarray:
    """Returns an array of one value."""
    return np.full(shape, value, dtype)


def sum(x: Any, axis: Axis = None, keepdims: bool = False) -> Any:
    """Computes the sum in the dtype of x, int32 for bools."""
    x = np.asarray(x)
    dtype = "int32" if x.dtype == bool else x.dtype
    return np.sum(x, axis=axis, dtype=dtype, keepdims=keepdims)


def cumsum(x: Any, axis: Axis = None) -> Any:
    """Computes cumulative sums in the dtype of x."""
    return np.cumsum(x, axis=axis, dtype=np.asarray(x).dtype)


def power(x: Any, exponent: Any) -> Any:
    """Computes powers in float32 where x is float32, also for an exponent in float64."""
    return np.power(x, np.asarray(exponent, np.asarray(x).dtype))


def where(condition: Any, x: Any, y: Any) -> Any:
    """Selects entries of x or y; a Python number takes the dtype of the other one."""
    if np.ndim(x) == 0 and np.ndim(y) == 2 and np.shape(condition) == np.shape(y)[1:]:
        columns = np.flatnonzero(condition)
        if not len(columns):
            return y
        if len(columns) < np.shape(y)[1] // 8:  # a copy is much faster than a selection
            result = y.copy()
            result[:, columns] = x
            return result
    if isinstance(y, bool | int | float):
        y = np.asarray(y, getattr(x, "dtype", None))
    if isinstance(x, bool | int | float):
        x = np.asarray(x, y.dtype)
    return np.where(condition, x, y)


def take(x: Any, indices: Any, axis: Axis = None) -> Any:
    """Selects entries along an axis, or of the flattened x."""
    return np.take(x, indices, axis=axis)


def argmax(x: Any, axis: Axis = None) -> Any:
    """Returns the index of the largest entry, the lower one of equal entries, as int32."""
    return np.argmax(x, axis=axis).astype("int32")


def argsort(x: Any, axis: int = -1) -> Any:
    """Returns the indices that sort x, in the order of x for equal entries, as int32."""
    return np.argsort(x, axis=axis, kind="stable").astype("int32")


def pad(x: Any, pad_width: Any, constant_values: Any = 0) -> Any:
    """Pads with a value."""
    return np.pad(x, pad_width, constant_values=constant_values)


def logsumexp(x: Any, axis: Axis = None, keepdims: bool = False) -> Any:
    """Computes the logarithm of the sum of exponentials along the last axis of x (R, N)."""
    if x.ndim != 2 or axis not in (-1, 1):
        raise ValueError(f"Expected x (R, N) and axis=-1. Received: {x.shape}, axis={axis}")
    result = np.empty((len(x), 1), x.dtype)  # (R,1)
    buffer = np.empty_like(x[0])  # (N,), which stays in the processor's cache
    for row, values in enumerate(x):
        largest = values.max()
        shift = largest if np.isfinite(largest) else np.float32(0)
        np.subtract(values, shift, out=buffer)
        np.exp(buffer, out=buffer)
        result[row] = np.log(buffer.sum()) + shift
    return result if keepdims else result[:, 0]


def top_k(x: Any, k: int) -> tuple[Any, Any]:
    """Finds the k largest entries of each row of x (R, N), in the order of x for equal ones."""
    if np.shape(x)[1] < FEW:
        indices = np.argsort(-x, axis=1, kind="stable")[:, :k].astype("int32")  # (R,k)
        return np.take_along_axis(x, indices, axis=1), indices
    # At least k entries are as large as the k-th largest maximum of any blocks of entries.
    num_blocks = np.shape(x)[1] // BLOCK
    maxima = x  # (R, N)
    if num_blocks >= k:
        maxima = x[:, : num_blocks * BLOCK].reshape(len(x), BLOCK, num_blocks)  # (R, BLOCK, M)
        maxima = maxima.max(axis=1)  # (R, M)
    smallest = np.partition(maxima, -k, axis=1)[:, -k]  # (R,)
    values, indices = np.empty((len(x), k), x.dtype), np.empty((len(x), k), "int32")  # (R,k)
    for row, threshold in enumerate(smallest):
        candidates = np.flatnonzero(x[row] >= threshold)
        best = candidates[np.argsort(-x[row][candidates], kind="stable")[:k]]  # (k,)
        values[row], indices[row] = x[row][best], best
    return values, indices


def scatter_update(x: Any, indices: Any, updates: Any, reduction: str | None = None) -> Any:
    """Replaces the entries of x at indices (N, ndim), or adds to them with reduction="add"."""
    result, where_to = x.copy(), tuple(np.moveaxis(np.asarray(indices), -1, 0))
    if reduction == "add":
        np.add.at(result, where_to, updates)
    elif reduction is None:
        result[where_to] = updates
    else:
        raise ValueError(f"Expected reduction None or 'add'. Received: reduction={reduction!r}")
    return result


def cond(is_true: Any, true_function: Callable[[], Any], false_function: Callable[[], Any]) -> Any:
    """Returns the result of one of two functions."""
    return true_function() if is_true else false_function()


def while_loop(condition: Callable[..., Any], body: Callable[..., Any], variables: Any) -> Any:
    """Replaces variables by `body(*variables)` while `condition(*variables)` holds."""
    while condition(*variables):
        variables = body(*variables)
    return variables
