"""One tensor in a file of weights, read on demand."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np

Shape = tuple[int, ...]
NORMS = ("ln_1", "ln_2", "ln_f")  # GPT-2's layer norms


@dataclass(frozen=True)
class StoredTensor:
    """A tensor in a file.

    Attributes:
        path: the file.
        name: name in the file.
        shape: shape in the file.
        dtype: name of the dtype in the file.
        load: reads the values of a tensor of this file, by name.
    """

    path: Path
    name: str
    shape: Shape
    dtype: str
    load: Callable[[str], np.ndarray]

    def read(self) -> np.ndarray:
        """Reads the values.

        Raises:
            ValueError: they cannot be read; the message names the file and the tensor.
        """
        try:
            return self.load(self.name)
        except Exception as error:  # a damaged file can raise anything
            raise damaged(self.path, error, f" tensor {self.name} of") from error


def damaged(path: Path, error: Exception, part: str = "") -> ValueError:
    """Returns the error to raise instead of a library's own error about a file."""
    return ValueError(
        f"Cannot read{part} {path}: it is truncated or damaged ({type(error).__name__}: {error})"
    )
