"""Reads PyTorch's weight files without PyTorch and without running the pickle inside them.

`torch.save` writes a pickled description of the tensors and, apart from it, their bytes: in a zip
archive since PyTorch 1.6, one after the other in one file before. Unpickling calls functions
named in the file, so only names that occur in state dicts are allowed.
"""

from __future__ import annotations

import mmap
import os
from collections.abc import Iterator, Mapping
from typing import Any, Literal

import numpy as np

from effcap.weights.torch_layout import read_layout
from effcap.weights.torch_pickle import Buffer, TensorView, UnreadableTorchFile

MAX_TENSORS = 100_000


def read_torch(source: str | os.PathLike | bytes, prefix: str = "") -> TorchFile:
    """Opens a file written by `torch.save` or `torch.jit.save` (.pth, .pt, .bin).

    Nothing in the file is run. It may name only dicts, tensors, parameters, storages, sizes and
    dtypes, and NumPy's arrays and scalars, which are skipped. The modules of a TorchScript file
    are read as dicts of their attributes.

    Args:
        source: path of the file, or its content.
        prefix: read only the tensors whose names start with it, and remove it from their names,
            such as "state_dict." for a training checkpoint.

    Returns:
        A mapping from names to `numpy.ndarray`; the bytes of a tensor are read on access. Names of
        nested dicts and lists are joined by dots. bfloat16 becomes float32. Other objects than
        tensors are skipped.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: the file is truncated, not PyTorch's, or names anything else, which is in the
            message; or no tensor's name starts with `prefix`.
    """
    return TorchFile(source, prefix)


class TorchFile(Mapping):
    """The tensors of a file written by `torch.save`, each read on access: see `read_torch`.

    Attributes:
        name: path of the file.
    """

    def __init__(self, source: str | os.PathLike | bytes, prefix: str = "") -> None:
        self.name = "the given bytes" if isinstance(source, bytes) else os.fspath(source)
        self._buffer = source if isinstance(source, bytes) else _map_file(source)
        try:
            layout = read_layout(self._buffer, source)
            tensors = _collect_tensors(layout.content)
            for name, tensor in tensors.items():
                tensor.check(name, layout.blobs)
        except UnreadableTorchFile as error:
            raise ValueError(f"Cannot read {self.name}: {error}.") from None
        except Exception as error:  # a damaged pickle or archive can raise anything
            raise ValueError(
                f"Cannot read {self.name}: it is truncated or damaged "
                f"({type(error).__name__}: {error})."
            ) from error
        self._blobs, self._byte_order = layout.blobs, layout.byte_order
        self._tensors = {
            name.removeprefix(prefix): tensor
            for name, tensor in tensors.items()
            if name.startswith(prefix)
        }
        if prefix and not self._tensors:
            raise ValueError(
                f"Expected the prefix of tensors in {self.name}. "
                f"Received: prefix={prefix!r}; names start {list(tensors)[:3]}"
            )

    def __len__(self) -> int:
        return len(self._tensors)

    def __iter__(self) -> Iterator[str]:
        return iter(self._tensors)

    def __contains__(self, name: object) -> bool:
        return name in self._tensors  # does not read the tensor, as Mapping's method would

    def shape(self, name: str) -> tuple[int, ...]:
        """Returns a tensor's shape without reading its values."""
        return self._tensors[name].shape

    def dtype(self, name: str) -> str:
        """Returns the dtype of a tensor's array without reading its values."""
        return self._tensors[name].array_dtype

    def dense(self, name: str) -> bool:
        """Returns whether a tensor's values are contiguous and distinct, in any order of axes."""
        tensor, step = self._tensors[name], 1
        for stride, size in sorted(zip(tensor.stride, tensor.shape, strict=True)):
            if size != 1 and stride != step:
                return False
            step *= size
        return True

    def __getitem__(self, name: str) -> np.ndarray:
        """Reads a tensor's values without keeping them in memory."""
        try:
            return self._read(self._tensors[name])
        finally:
            if hasattr(mmap, "MADV_DONTNEED") and isinstance(self._buffer, mmap.mmap):
                self._buffer.madvise(mmap.MADV_DONTNEED)  # frees the pages that were read

    def _read(self, tensor: TensorView) -> np.ndarray:
        start = 0 if tensor.extent == 0 else self._blobs[tensor.storage.key].start
        values = view_tensor(tensor, self._buffer, start, self._byte_order)
        return values.astype(tensor.array_dtype, order="C", copy=tensor.dtype != "bfloat16")


def view_tensor(
    tensor: TensorView, buffer: Buffer, start: int, byte_order: Literal["<", ">"]
) -> np.ndarray:
    """Returns a tensor's values without copying them, except those of bfloat16.

    Args:
        tensor: a tensor whose values are inside its storage; see `TensorView.check`.
        buffer: bytes that contain the storage.
        start: offset of the storage in bytes.
        byte_order: "<" or ">".

    Returns:
        A read-only array, in the tensor's dtype and byte order; float32 for bfloat16.
    """
    if tensor.extent == 0:
        return np.empty(tensor.shape, tensor.array_dtype)
    dtype = np.dtype(tensor.stored_dtype).newbyteorder(byte_order)
    offset = start + tensor.offset * dtype.itemsize
    values = np.frombuffer(buffer, dtype, count=tensor.extent, offset=offset)
    strides = [step * dtype.itemsize for step in tensor.stride]
    values = np.lib.stride_tricks.as_strided(values, tensor.shape, strides, writeable=False)
    if tensor.dtype == "bfloat16":  # the upper half of a float32
        bits = values.astype(np.uint32, order="C")
        bits <<= 16
        return bits.view(np.float32)
    return values


def _map_file(path: str | os.PathLike) -> Buffer:
    with open(path, "rb") as file:
        if os.fstat(file.fileno()).st_size == 0:
            return b""  # an empty file cannot be mapped
        return mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)


def _collect_tensors(content: Any) -> dict[str, TensorView]:
    """Returns the tensors of an unpickled object by name.

    Raises:
        UnreadableTorchFile: a tensor has no name, or two have the same.
    """
    tensors: dict[str, TensorView] = {}
    for name, tensor in _walk("", content, set()):
        if len(tensors) == MAX_TENSORS:
            raise UnreadableTorchFile(f"it holds more than {MAX_TENSORS} tensors")
        if name in tensors:
            raise UnreadableTorchFile(f"it holds two tensors of the name {name!r}")
        tensors[name] = tensor
    return tensors


def _walk(prefix: str, value: Any, without: set[int]) -> Iterator[tuple[str, TensorView]]:
    """Yields all tensors in nested dicts, lists and tuples, with their keys joined by dots.

    Args:
        prefix: keys that lead to `value`, joined by dots.
        value: any unpickled value.
        without: ids of dicts, lists and tuples found to hold no tensors. A file of a few bytes can
            name one so often that visiting it each time would take forever.
    """
    if isinstance(value, TensorView):
        if not prefix:
            raise UnreadableTorchFile("it holds a single tensor without a name, not a state dict")
        yield prefix, value
    elif isinstance(value, dict | list | tuple) and id(value) not in without:
        items = value.items() if isinstance(value, dict) else enumerate(value)
        is_empty = True
        for key, child in items:
            for tensor in _walk(f"{prefix}.{key}" if prefix else str(key), child, without):
                is_empty = False
                yield tensor
        if is_empty:
            without.add(id(value))
