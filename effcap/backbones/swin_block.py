"""The block of a Swin transformer: attention within windows of a grid of tokens, and an MLP."""

from __future__ import annotations

from typing import Any

import numpy as np
from keras import layers, ops

from effcap.layers.attention import check_num_heads, dense, split_heads, weighted_values
from effcap.layers.embedding import Embedding

EPSILON = 1e-5
MLP_RATIO = 4
MASKED = -100.0  # added to a score, as in the original


class WindowAttention(layers.Layer):
    """Self-attention within windows, with a learned bias for each relative position.

    Args:
        num_heads: number of heads H, a divisor of the width C.
        window_size: side of a window in tokens.

    Call arguments:
        x: windows (B*W, N, C).
        window_mask: numbers added to the scores, (W, N, N); None adds nothing.

    Returns:
        (B*W, N, C).
    """

    def __init__(self, num_heads: int, window_size: int, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.num_heads, self.window_size = num_heads, window_size

    def build(self, shape: Any) -> None:
        hidden_dim = shape[-1]
        check_num_heads(hidden_dim, self.num_heads)
        self.qkv = dense(3 * hidden_dim, "qkv")
        self.projection = dense(hidden_dim, "projection")
        # An embedding: no weight decay, as in the original, and dense gradients on TensorFlow.
        self.position_bias = Embedding(
            (2 * self.window_size - 1) ** 2, self.num_heads, name="position_bias"
        )
        for layer in (self.qkv, self.projection):
            layer.build(shape)
        self.position_bias.build()
        self.built = True

    def compute_output_shape(self, shape: Any, window_mask: Any = None) -> Any:
        return shape

    def call(self, x: Any, window_mask: Any = None) -> Any:
        tokens = self.window_size**2
        queries, keys, values = split_heads(self.qkv(x), 3, self.num_heads)  # 3 x (B*W,H,N,d)
        queries = queries * queries.shape[-1] ** -0.5
        scores = ops.matmul(queries, ops.swapaxes(keys, 2, 3))  # (B*W,H,N,N)
        scores = ops.cast(scores, "float32")
        bias = self.position_bias(relative_positions(self.window_size))  # (N,N,H)
        scores = scores + ops.cast(ops.transpose(bias, (2, 0, 1)), "float32")  # (B*W,H,N,N)
        if window_mask is not None:
            windows = window_mask.shape[0]
            scores = ops.reshape(scores, (-1, windows, self.num_heads, tokens, tokens))
            scores = scores + ops.cast(window_mask[:, None], "float32")  # (B,W,H,N,N)
            scores = ops.reshape(scores, (-1, self.num_heads, tokens, tokens))  # (B*W,H,N,N)
        weights = ops.cast(ops.softmax(scores, axis=-1), values.dtype)  # (B*W,H,N,N)
        return self.projection(weighted_values(weights, values))  # (B*W,N,C)


class SwinBlock(layers.Layer):
    """Pre-norm attention within windows, and a pre-norm MLP.

    Args:
        num_heads: number of heads H, a divisor of the width C.
        window_size: side of a window in tokens. A grid whose smaller side is at most that has
            windows of that side, and no shift.
        shifted: whether windows are shifted by half their side (default: False).
        drop_path: rate at which a residual branch is dropped in training (default: 0).

    Call arguments:
        x: (B, h, w, C).

    Returns:
        (B, h, w, C).
    """

    is_residual_block = True  # for `find_blocks`, which does not look into layers

    def __init__(
        self,
        num_heads: int,
        window_size: int,
        shifted: bool = False,
        drop_path: float = 0.0,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.num_heads, self.window_size = num_heads, window_size
        self.shifted, self.drop_path = shifted, drop_path
        self.norm1 = layers.LayerNormalization(epsilon=EPSILON, name="norm1")
        self.norm2 = layers.LayerNormalization(epsilon=EPSILON, name="norm2")
        self.dropout = layers.Dropout(drop_path, noise_shape=(None, 1, 1, 1), name="drop_path")

    def build(self, shape: Any) -> None:
        _, height, width, hidden_dim = shape
        self.side = min(self.window_size, height, width)  # of a window
        self.shift = self.side // 2 if self.shifted and min(height, width) > self.side else 0
        self.attention = WindowAttention(self.num_heads, self.side, name="attention")
        self.fc1 = dense(MLP_RATIO * hidden_dim, "fc1")
        self.fc2 = dense(hidden_dim, "fc2")
        for layer in (self.norm1, self.norm2, self.fc1):
            layer.build(shape)
        self.attention.build((None, self.side**2, hidden_dim))
        self.fc2.build((*shape[:3], MLP_RATIO * hidden_dim))
        self.built = True

    def compute_output_shape(self, shape: Any) -> Any:
        return shape

    def call(self, x: Any, training: bool | None = None) -> Any:
        mixed = self._attend(self.norm1(x))  # (B,h,w,C)
        x = x + self.dropout(mixed, training=training)
        hidden = ops.gelu(self.fc1(self.norm2(x)), approximate=False)  # (B,h,w,4C)
        return x + self.dropout(self.fc2(hidden), training=training)  # (B,h,w,C)

    def _attend(self, x: Any) -> Any:
        """Returns attention (B, h, w, C) within the windows of x (B, h, w, C)."""
        height, width = x.shape[1:3]
        x = pad_grid(x, self.side)
        grid, mask = x.shape[1:3], None
        if self.shift:
            x = ops.roll(x, (-self.shift, -self.shift), axis=(1, 2))
            mask = ops.convert_to_tensor(shift_mask(grid, self.side, self.shift))  # (W,N,N)
        x = self.attention(split_windows(x, self.side), window_mask=mask)  # (B*W,N,C)
        x = merge_windows(x, grid, self.side)
        if self.shift:
            x = ops.roll(x, (self.shift, self.shift), axis=(1, 2))
        return x[:, :height, :width]


def pad_grid(x: Any, multiple: int) -> Any:
    """Pads (B, h, w, C) with zeros on the right and at the bottom to multiples of a number."""
    bottom, right = (-side % multiple for side in x.shape[1:3])
    return ops.pad(x, ((0, 0), (0, bottom), (0, right), (0, 0))) if bottom or right else x


def split_windows(x: Any, side: int) -> Any:
    """Splits a grid (B, h, w, C) into windows (B*W, side * side, C), row by row."""
    _, height, width, channels = x.shape
    x = ops.reshape(x, (-1, height // side, side, width // side, side, channels))
    x = ops.transpose(x, (0, 1, 3, 2, 4, 5))  # (B,h/side,w/side,side,side,C)
    return ops.reshape(x, (-1, side * side, channels))  # (B*W,N,C)


def merge_windows(x: Any, grid: tuple[int, int], side: int) -> Any:
    """Merges windows (B*W, side * side, C) into the grid (B, h, w, C) that they were split from."""
    (height, width), channels = grid, x.shape[-1]
    x = ops.reshape(x, (-1, height // side, width // side, side, side, channels))
    x = ops.transpose(x, (0, 1, 3, 2, 4, 5))  # (B,h/side,side,w/side,side,C)
    return ops.reshape(x, (-1, height, width, channels))  # (B,h,w,C)


def relative_positions(side: int) -> np.ndarray:
    """Returns the row in a table of (2*side - 1) ** 2 biases for each pair of tokens, (N, N)."""
    rows, columns = (axis.ravel() for axis in np.indices((side, side)))  # (N,)
    row_offsets = rows[:, None] - rows + side - 1  # (N,N)
    column_offsets = columns[:, None] - columns + side - 1  # (N,N)
    return (row_offsets * (2 * side - 1) + column_offsets).astype(np.int32)


def shift_mask(grid: tuple[int, int], side: int, shift: int) -> np.ndarray:
    """Returns scores (W, N, N) that separate tokens which are neighbours only by the shift.

    Args:
        grid: height and width of the shifted grid, multiples of `side`.
        side: side of a window.
        shift: number of rows and columns that have moved to the other end.
    """

    def bands(length: int) -> np.ndarray:
        positions = np.arange(length)
        return (positions >= length - side).astype(int) + (positions >= length - shift)

    regions = bands(grid[0])[:, None] * 3 + bands(grid[1])  # (h,w)
    windows = regions.reshape(grid[0] // side, side, grid[1] // side, side)
    windows = windows.transpose(0, 2, 1, 3).reshape(-1, side * side)  # (W,N)
    return np.where(windows[:, :, None] == windows[:, None], 0, MASKED).astype(np.float32)
