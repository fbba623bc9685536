"""Resizes tables of position embeddings to grids of another size."""

from __future__ import annotations

import math

import numpy as np

CUBIC = -0.5  # Keys's coefficient, as Pillow and PyTorch have it with antialiasing


def source_grid(num_positions: int) -> tuple[int, int] | None:
    """Returns the square grid of a table with one more position; None if there is none."""
    side = math.isqrt(max(num_positions - 1, 0))
    return (side, side) if side > 0 and side * side == num_positions - 1 else None


def resize_positions(table: np.ndarray, grid: tuple[int, int]) -> np.ndarray:
    """Interpolates the positions of a grid, bicubically with antialiasing.

    This is what open_clip does at load time.

    Args:
        table: (1 + n * n, D), the position of a class token or mean first, then those of a square
            grid, row by row.
        grid: height and width of the new grid.

    Returns:
        (1 + height * width, D).

    Raises:
        ValueError: the table has another number of positions.
    """
    old_grid = source_grid(len(table))
    if old_grid is None:
        raise ValueError(f"Expected 1 + n * n positions. Received: {len(table)}")
    first, positions = table[:1], table[1:].reshape(*old_grid, -1)  # (1,D), (n,n,D)
    rows = interpolation_matrix(old_grid[0], grid[0])  # (height,n)
    columns = interpolation_matrix(old_grid[1], grid[1])  # (width,n)
    resized = np.einsum("yi,xj,ijd->yxd", rows, columns, positions)  # (height,width,D)
    resized = resized.reshape(-1, table.shape[-1]).astype(table.dtype)  # (height*width,D)
    return np.concatenate([first, resized])


def interpolation_matrix(old: int, new: int) -> np.ndarray:
    """Returns the weights (new, old) of antialiased bicubic interpolation of `old` values."""
    scale = old / new
    stretch = max(scale, 1.0)  # of the filter, to average over values when there are fewer
    centers = (np.arange(new) + 0.5) * scale  # (new,)
    distances = np.abs(np.arange(old) + 0.5 - centers[:, None]) / stretch  # (new,old)
    near = ((CUBIC + 2) * distances - (CUBIC + 3)) * distances**2 + 1
    far = (((distances - 5) * distances + 8) * distances - 4) * CUBIC
    weights = np.where(distances < 1, near, np.where(distances < 2, far, 0.0))  # (new,old)
    return weights / weights.sum(axis=1, keepdims=True)
