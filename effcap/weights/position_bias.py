"""Interpolates Swin's relative position biases to windows of another size, as X-VLM does.

The old biases are placed at distances from the centre that grow geometrically up to the edge of the
new window, and a bicubic spline runs through them (as in BEiT, Bao et al. 2021,
https://arxiv.org/abs/2106.08254).
"""

from __future__ import annotations

import math
from collections.abc import Iterable

import numpy as np

MIN_SIDE = 4  # of a table: a cubic spline has four coefficients
RATIOS = (1.01, 1.5)  # of the distance of one position from the centre to that of the one before
TOLERANCE = 1e-6


def window_side(num_positions: int) -> int:
    """Returns the side of the window that has a number of relative positions.

    Raises:
        ValueError: there is none: the number is not the square of an odd number.
    """
    side = math.isqrt(num_positions)
    if side * side != num_positions or side % 2 == 0:
        raise ValueError(
            "Expected (2 * window_size - 1) ** 2 relative positions. "
            f"Received: a table of {num_positions}"
        )
    return (side + 1) // 2


def can_interpolate(shape: tuple[int, ...], target: tuple[int, ...]) -> bool:
    """Returns whether a table of one shape can be interpolated to another shape."""
    side = math.isqrt(shape[0])
    return (
        len(shape) == 2
        and shape[1:] == target[1:]
        and side >= MIN_SIDE
        and side % 2 == 1
        and side * side == shape[0]
    )


def interpolation_lines(windows: Iterable[tuple[int, int]]) -> list[str]:
    """Returns a line about each interpolation, given by the sides of the old and new windows."""
    return [
        f"relative position biases of {old}x{old} windows interpolated to {new}x{new}, as in X-VLM"
        for old, new in sorted(windows)
    ]


def interpolate_position_bias(table: np.ndarray, window_size: int) -> np.ndarray:
    """Returns a table of relative position biases for another window.

    Args:
        table: biases (S * S, H) of H heads; S is 2 * w - 1 for windows of w x w tokens.
        window_size: side of the new window.

    Returns:
        Biases ((2 * window_size - 1) ** 2, H) float32; `table` itself if it has that size.

    Raises:
        ValueError: `table` is not square, or is too small for a cubic spline.
    """
    source, target = 2 * window_side(len(table)) - 1, 2 * window_size - 1
    if source == target:
        return table
    if source < MIN_SIDE:
        raise ValueError(
            "Expected windows of at least 3x3 tokens to interpolate from. "
            f"Received: window_size={(source + 1) // 2}"
        )
    old, new = _positions(source, target), np.arange(target) - target // 2
    spline = _spline_matrix(old, np.clip(new, old[0], old[-1]))  # (D,S)
    grid = table.reshape(source, source, -1).astype(np.float64)  # (S,S,H)
    biases = np.einsum("is,sth,jt->ijh", spline, grid, spline)  # (D,D,H)
    return biases.reshape(target * target, -1).astype(np.float32)


def _positions(source: int, target: int) -> np.ndarray:
    """Returns where in a table of side `target` the positions of one of side `source` lie, (S,)."""
    low, high = RATIOS
    while high - low > TOLERANCE:
        ratio = (low + high) / 2
        if (1 - ratio ** (source // 2)) / (1 - ratio) > target // 2:
            high = ratio
        else:
            low = ratio
    outwards = np.cumsum(ratio ** np.arange(source // 2))
    return np.concatenate([-outwards[::-1], [0], outwards])


def _spline_matrix(old: np.ndarray, new: np.ndarray) -> np.ndarray:
    """Returns the values (D, S) at `new` of the S cubic splines that are 1 at one of `old`.

    The first two pieces of a spline are one polynomial, and so are the last two ("not a knot").

    Args:
        old: rising positions (S,).
        new: positions (D,), none outside `old`.
    """
    size, steps = len(old), np.diff(old)  # steps: (S-1,)
    # Second derivatives M solve `system @ M = slopes @ values`.
    system, slopes = np.zeros((size, size)), np.zeros((size, size))
    for i in range(1, size - 1):
        left, right = steps[i - 1], steps[i]
        system[i, i - 1 : i + 2] = left, 2 * (left + right), right
        slopes[i, i - 1 : i + 2] = 6 / left, -6 / left - 6 / right, 6 / right
    system[0, :3] = -1 / steps[0], 1 / steps[0] + 1 / steps[1], -1 / steps[1]
    system[-1, -3:] = -1 / steps[-2], 1 / steps[-2] + 1 / steps[-1], -1 / steps[-1]
    second = np.linalg.solve(system, slopes)  # (S,S)
    piece = np.clip(np.searchsorted(old, new, side="right") - 1, 0, size - 2)  # (D,)
    step = steps[piece][:, None]  # (D,1)
    after = (new - old[piece])[:, None]  # (D,1)
    before = step - after
    identity = np.eye(size)
    return (
        (identity[piece] - second[piece] * step**2 / 6) * before / step
        + (identity[piece + 1] - second[piece + 1] * step**2 / 6) * after / step
        + (second[piece] * before**3 + second[piece + 1] * after**3) / (6 * step)
    )
