"""Decodes pickled NumPy arrays and scalars without running the functions that the pickle names.

NumPy pickles a dtype as `dtype(code, align, copy)` with a state, a scalar as
`scalar(dtype, bytes)`, and an array as `_reconstruct(ndarray, (0,), b"b")` with a state or, in
protocol 5, as `_frombuffer(bytes, dtype, shape, order)`.
"""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from typing import Any

import numpy as np

from effcap.weights.torch_pickle import UnreadableTorchFile

# Booleans, integers, floats and, for scalars, text; no objects, which could be anything.
CODE = re.compile(r"b1|[iu][1248]|f[248]|U\d{1,6}")
MULTIARRAY = ("numpy.core.multiarray", "numpy._core.multiarray")
NUMERIC = ("numpy.core.numeric", "numpy._core.numeric")


class PickledDtype:
    """A dtype of plain numbers or text.

    Args:
        code: kind and size, such as "f4".

    Raises:
        UnreadableTorchFile: it is another dtype.
    """

    def __init__(self, code: Any) -> None:
        if not isinstance(code, str) or not CODE.fullmatch(code):
            raise UnreadableTorchFile(f"it holds an array of the dtype {str(code)[:20]!r}")
        self.dtype = np.dtype(code)

    def __setstate__(self, state: Any) -> None:
        order = state[1] if isinstance(state, tuple) and len(state) > 1 else None
        if order not in ("<", ">", "|", "="):
            raise UnreadableTorchFile("it holds a malformed dtype")
        self.dtype = self.dtype.newbyteorder(order)


class PickledArray:
    """An array of numbers.

    Args:
        values: the numbers; None until the pickle has set its state.
    """

    def __init__(self, values: np.ndarray | None = None) -> None:
        self.values = values

    def __setstate__(self, state: Any) -> None:
        _version, shape, dtype, is_fortran, data = state
        self.values = decode_array(data, dtype, shape, "F" if is_fortran else "C")


def decode_array(
    data: Any, dtype: Any, shape: Any, order: Any, axes: Sequence[int] | None = None
) -> np.ndarray:
    """Returns an array over pickled bytes, without copying them.

    Args:
        data: the numbers.
        dtype: a `PickledDtype`.
        shape: shape of the array.
        order: "C" or "F"; "K" with `axes`.
        axes: order of the axes to transpose to.

    Raises:
        UnreadableTorchFile: shape and number of bytes differ, or the array is malformed.
    """
    is_shape = isinstance(shape, tuple) and all(isinstance(n, int) and n >= 0 for n in shape)
    is_data = isinstance(data, bytes) and isinstance(dtype, PickledDtype)
    if not is_shape or not is_data:
        raise UnreadableTorchFile("it holds a malformed array")
    if math.prod(shape) * dtype.dtype.itemsize != len(data):
        raise UnreadableTorchFile(f"it holds {len(data)} bytes of an array of shape {shape}")
    values = np.frombuffer(data, dtype.dtype)
    if order == "K" and axes is not None:
        return values.reshape(shape).transpose(axes)
    return values.reshape(shape, order="F" if order == "F" else "C")


def decode_scalar(dtype: Any, data: Any) -> Any:
    """Returns a pickled scalar as Python's own type.

    Raises:
        UnreadableTorchFile: it is malformed.
    """
    return decode_array(data, dtype, (1,), "C")[0].item()


def encode_latin1(text: Any, encoding: Any = None) -> bytes:
    """Returns the bytes that protocols below 3 pickle as text.

    Raises:
        UnreadableTorchFile: it is not such text.
    """
    if not isinstance(text, str) or encoding != "latin1":
        raise UnreadableTorchFile("it holds malformed bytes")
    return text.encode("latin1")
