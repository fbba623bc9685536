"""Picking entries of each row: the largest ones, or those at given indices."""

from __future__ import annotations

import math
from typing import Any

import keras
from keras import ops


def top_k(values: Any, k: int) -> tuple[Any, Any]:
    """Finds the `k` largest of each row; of equal ones the lower index comes first.

    Wide rows are cut into blocks. Only the k blocks with the largest maxima can hold any of the
    k largest entries, so that no sort runs over the whole row (which XLA would do otherwise).

    Args:
        values: `(R, N)`, without NaN.
        k: at most N.

    Returns:
        The values, `(R, k)`, largest first, and their indices, `(R, k)` int32.
    """
    values = ops.convert_to_tensor(values)
    rows, size = values.shape
    width = math.isqrt(size // k)
    if width < 8:
        return _sorted_top_k(values, k)
    blocks = -(-size // width)
    padding = ((0, 0), (0, blocks * width - size))
    cut = ops.pad(values, padding, constant_values=-float("inf"))
    cut = ops.reshape(cut, (rows, blocks, width))  # (R, N) -> (R, blocks, width)
    _, best = _sorted_top_k(ops.max(cut, axis=-1), k)  # (R, k)
    best = ops.sort(best, axis=-1)  # so that places within keep the order of the row
    few = ops.reshape(gather(cut, best), (rows, k * width))  # (R, k, width) -> (R, k * width)
    largest, places = _sorted_top_k(few, k)  # (R, k)
    block = ops.take_along_axis(best, places // width, axis=1)  # (R, k)
    return largest, block * width + places % width


def gather(values: Any, indices: Any) -> Any:
    """values (B, N, ...) at indices (B, M) -> (B, M, ...)."""
    values = ops.convert_to_tensor(values)
    rows, count = values.shape[:2]
    rest = tuple(values.shape[2:])
    firsts = ops.arange(rows, dtype="int32")[:, None] * count  # (B, 1)
    flat = ops.reshape(values, (rows * count, *rest))  # (B, N, ...) -> (B * N, ...)
    return ops.take(flat, indices + firsts, axis=0)


def _sorted_top_k(values: Any, k: int) -> tuple[Any, Any]:
    if keras.backend.backend() == "torch":  # its own top_k breaks ties as it pleases
        indices = ops.argsort(-values, axis=-1)[:, :k]
        return ops.take_along_axis(values, indices, axis=-1), indices
    return ops.top_k(values, k)
