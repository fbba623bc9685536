"""Row-wise operations: the largest entries, and entries at given indices."""

from __future__ import annotations

import math
from typing import Any

import keras
import numpy as np

from effcap.samplers.backend import has_numpy_arrays, ops


def top_k(values: Any, k: int) -> tuple[Any, Any]:
    """Finds the `k` largest entries of each row; of equal ones the lower index comes first.

    Wide rows are split into blocks. Only the k blocks with the largest maxima can contain any of
    the k largest entries, which avoids sorting the whole row (as XLA would).

    Args:
        values: (R, N), without NaN.
        k: number of entries, at most N.

    Returns:
        The values, (R, k), largest first, and their indices, (R, k) int32.
    """
    values = ops.convert_to_tensor(values)
    rows, size = values.shape
    width = math.isqrt(size // k)
    if width < 8 or has_numpy_arrays():
        return _sorted_top_k(values, k)
    num_blocks = -(-size // width)
    padding = ((0, 0), (0, num_blocks * width - size))
    blocks = ops.pad(values, padding, constant_values=-float("inf"))  # (R, num_blocks * width)
    blocks = ops.reshape(blocks, (rows, num_blocks, width))  # -> (R, num_blocks, width)
    _, best_blocks = _sorted_top_k(ops.max(blocks, axis=-1), k)  # (R, k)
    best_blocks = ops.sort(best_blocks, axis=-1)  # keeps the order of the row for equal entries
    candidates = gather(blocks, best_blocks)  # (R, k, width)
    candidates = ops.reshape(candidates, (rows, k * width))  # (R, k, width) -> (R, k * width)
    largest, indices = _sorted_top_k(candidates, k)  # (R, k)
    block = ops.take_along_axis(best_blocks, indices // width, axis=1)  # (R, k)
    return largest, block * width + indices % width


def gather(values: Any, indices: Any) -> Any:
    """Selects entries of each row: values (B, N, ...) at indices (B, M) -> (B, M, ...)."""
    if has_numpy_arrays():
        return values[np.arange(len(values))[:, None], indices]
    values = ops.convert_to_tensor(values)
    rows, size = values.shape[:2]
    rest = tuple(values.shape[2:])
    offsets = ops.arange(rows, dtype="int32")[:, None] * size  # (B, 1)
    flat = ops.reshape(values, (rows * size, *rest))  # (B, N, ...) -> (B * N, ...)
    return ops.take(flat, indices + offsets, axis=0)


def _sorted_top_k(values: Any, k: int) -> tuple[Any, Any]:
    if keras.backend.backend() == "torch":  # torch.topk orders equal entries arbitrarily
        indices = ops.argsort(-values, axis=-1)[:, :k]
        return ops.take_along_axis(values, indices, axis=-1), indices
    return ops.top_k(values, k)
