"""Arrays of 8-bit integers and scales: symmetric, one scale per row, column or channel."""

from __future__ import annotations

import numpy as np

LARGEST = 127
VALUES_PER_SCALE = 16  # fewer would lose the space that 8 bits gain


def quantize_rows(matrix: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Rounds each row of a matrix to 8 bits, symmetrically around zero.

    Args:
        matrix: (N, M) float32.

    Returns:
        int8 (N, M) from -127 to 127, and the scales (N, 1) that they are multiplied by.
    """
    scales = np.abs(matrix).max(axis=1, keepdims=True) / LARGEST  # (N,1)
    scales[scales == 0] = 1
    return np.round(matrix / scales).astype(np.int8), scales.astype(np.float32)


def quantize(array: np.ndarray, axis: int) -> tuple[np.ndarray, np.ndarray] | None:
    """Rounds an array to 8 bits, with one scale for each index of an axis.

    Args:
        array: finite float32 of two or more axes.
        axis: number of the axis, from 0.

    Returns:
        int8 of the array's shape, and float32 scales whose shape is 1 but for the axis, so that
        their product is the rounded array. None if there are too few values for each scale.
    """
    count = array.shape[axis]
    if count * VALUES_PER_SCALE > array.size:
        return None
    first = np.moveaxis(array, axis, 0)  # (N,...)
    rows, scales = quantize_rows(first.reshape(count, -1))  # (N,M) and (N,1)
    values = np.ascontiguousarray(np.moveaxis(rows.reshape(first.shape), 0, axis))
    return values, scales.reshape([count if i == axis else 1 for i in range(array.ndim)])


def dequantize(values: np.ndarray, scales: np.ndarray) -> np.ndarray:
    """Returns the float32 array of the results of `quantize`.

    Raises:
        ValueError: the types or shapes are not those of such results, or a scale is not a positive
            number.
    """
    if values.dtype != np.int8 or scales.dtype != np.float32:
        raise ValueError(
            f"Expected int8 values and float32 scales. Received: {values.dtype} and {scales.dtype}"
        )
    expected = [
        tuple(count if index == axis else 1 for index in range(values.ndim))
        for axis, count in enumerate(values.shape)
    ]
    if scales.shape not in expected:
        raise ValueError(
            f"Expected a scale for each index of one axis of {values.shape}. "
            f"Received: scales of shape {scales.shape}"
        )
    if not (np.isfinite(scales) & (scales > 0)).all():
        wrong = scales[~(np.isfinite(scales) & (scales > 0))].flat[0]
        raise ValueError(f"Expected positive scales. Received: {wrong}")
    return values * scales
