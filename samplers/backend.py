"""The operations that samplers are made of: Keras's on tensors, or NumPy's on arrays.

A sampler inside of a compiled Keras program uses Keras's. Around an engine other than Keras, whose
steps return arrays, it runs with NumPy's, which need no compilation.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any

import keras
import numpy as np

from effcap.samplers import numpy_ops

_is_numpy = ContextVar("_is_numpy", default=False)


class _Operations:
    """Looks up an operation in `keras.ops` or, inside of `numpy_arrays()`, in `numpy_ops`."""

    def __getattr__(self, name: str) -> Any:
        return getattr(numpy_ops if _is_numpy.get() else keras.ops, name)


ops: Any = _Operations()


def has_numpy_arrays() -> bool:
    """Returns whether samplers compute with NumPy."""
    return _is_numpy.get()


@contextmanager
def numpy_arrays() -> Iterator[None]:
    """Makes samplers compute with NumPy in a `with` statement, in this thread only."""
    token = _is_numpy.set(True)
    try:
        # Infinite logits mean forbidden tokens.
        with np.errstate(all="ignore"):
            yield
    finally:
        _is_numpy.reset(token)
