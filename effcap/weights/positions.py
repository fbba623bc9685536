"""Resizes tables of position embeddings to grids of another size."""

from __future__ import annotations

import math

import numpy as np

# Keys's coefficient, as PyTorch has it with antialiasing (and Pillow) and without.
CUBIC = {True: -0.5, False: -0.75}


def source_grid(num_positions: int) -> tuple[int, int] | None:
    """Returns the square grid of a table with one more position; None if there is none."""
    side = math.isqrt(max(num_positions - 1, 0))
    return (side, side) if side > 0 and side * side == num_positions - 1 else None


def resize_positions(
    table: np.ndarray, grid: tuple[int, int], antialias: bool = True
) -> np.ndarray:
    """Interpolates the positions of a grid bicubically.

    At load time, open_clip does this with antialiasing, BLIP and transformers without.

    Args:
        table: (1 + n * n, D), the position of a class token or mean first, then those of a square
            grid, row by row.
        grid: height and width of the new grid.
        antialias: whether a smaller grid averages over more positions.

    Returns:
        (1 + height * width, D).

    Raises:
        ValueError: the table has another number of positions.
    """
    old_grid = source_grid(len(table))
    if old_grid is None:
        raise ValueError(f"Expected 1 + n * n positions. Received: {len(table)}")
    first, positions = table[:1], table[1:].reshape(*old_grid, -1)  # (1,D), (n,n,D)
    rows = interpolation_matrix(old_grid[0], grid[0], antialias)  # (height,n)
    columns = interpolation_matrix(old_grid[1], grid[1], antialias)  # (width,n)
    resized = np.einsum("yi,xj,ijd->yxd", rows, columns, positions)  # (height,width,D)
    resized = resized.reshape(-1, table.shape[-1]).astype(table.dtype)  # (height*width,D)
    return np.concatenate([first, resized])


def interpolation_matrix(old: int, new: int, antialias: bool = True) -> np.ndarray:
    """Returns the weights (new, old) of bicubic interpolation of `old` values.

    Beyond the ends, the interpolation with antialiasing has no values, and that without has copies
    of the last one.
    """
    scale = old / new
    stretch = max(scale, 1.0) if antialias else 1.0  # of the filter, to average over more values
    centers = (np.arange(new) + 0.5) * scale  # (new,)
    margin = 0 if antialias else 2
    sources = np.arange(-margin, old + margin)  # (n,)
    distances = np.abs(sources + 0.5 - centers[:, None]) / stretch  # (new,n)
    a = CUBIC[antialias]
    near = ((a + 2) * distances - (a + 3)) * distances**2 + 1
    far = (((distances - 5) * distances + 8) * distances - 4) * a
    weights = np.where(distances < 1, near, np.where(distances < 2, far, 0.0))  # (new,n)
    clipped = np.clip(sources, 0, old - 1)[:, None] == np.arange(old)  # (n,old)
    weights = weights @ clipped  # (new,old)
    return weights / weights.sum(axis=1, keepdims=True)
