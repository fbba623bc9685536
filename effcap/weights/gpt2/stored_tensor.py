"""One tensor in a file of weights, read on demand."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from effcap.weights.name_pairs import raise_mismatches

Shape = tuple[int, ...]
FLOATS = ("float16", "bfloat16", "float32", "float64")
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


def check_tensors(
    source: str,
    tensors: Mapping[str, StoredTensor],
    shapes: Mapping[str, Shape],
    *,
    weights: Collection[str],
    skipped: Collection[str] = (),
) -> None:
    """Checks that a file has exactly the expected tensors.

    Args:
        source: where the tensors are from, for the message.
        tensors: tensors of the file by name.
        shapes: expected shapes by name.
        weights: names of those that must be floating-point.
        skipped: names of other tensors that may be there.

    Raises:
        ValueError: a name, a shape or a dtype does not fit; the message lists all of them.
    """
    present = {name: tensors[name] for name in shapes if name in tensors}
    raise_mismatches(
        source,
        {
            "missing": [f"{name} {shape}" for name, shape in shapes.items() if name not in present],
            "unexpected": [
                f"{name} {tensor.shape}"
                for name, tensor in tensors.items()
                if name not in shapes and name not in skipped
            ],
            "of another shape": [
                f"{name} {tensor.shape} for {shapes[name]}"
                for name, tensor in present.items()
                if tensor.shape != shapes[name]
            ],
            "that are not floating-point": [
                f"{name} {tensor.dtype}"
                for name, tensor in present.items()
                if name in weights and tensor.dtype not in FLOATS
            ],
        },
    )


def damaged(path: Path, error: Exception, part: str = "") -> ValueError:
    """Returns the error to raise instead of a library's own error about a file."""
    return ValueError(
        f"Cannot read{part} {path}: it is truncated or damaged ({type(error).__name__}: {error})"
    )
