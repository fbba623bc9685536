"""Unpickles the description of the tensors in a PyTorch file without running any of its code."""

from __future__ import annotations

import mmap
import pickle
import reprlib
import struct
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, ClassVar, Protocol

import numpy as np

Buffer = mmap.mmap | bytes

STORAGES = {
    "DoubleStorage": "float64",
    "FloatStorage": "float32",
    "HalfStorage": "float16",
    "BFloat16Storage": "bfloat16",
    "LongStorage": "int64",
    "IntStorage": "int32",
    "ShortStorage": "int16",
    "CharStorage": "int8",
    "ByteStorage": "uint8",
    "BoolStorage": "bool",
    "ComplexFloatStorage": "complex64",
    "ComplexDoubleStorage": "complex128",
    "UntypedStorage": "uint8",
}
DTYPES = {*STORAGES.values(), "uint16", "uint32", "uint64"}
# NumPy objects in a training checkpoint (scores, random state), which are skipped.
IGNORED = {
    "numpy.ndarray",
    "numpy.dtype",
    "numpy.core.multiarray._reconstruct",
    "numpy.core.multiarray.scalar",
    "numpy._core.multiarray._reconstruct",
    "numpy._core.multiarray.scalar",
    "_codecs.encode",
}


class UnreadableTorchFile(Exception):
    """The reason why a file cannot be read; becomes a ValueError that names the file."""


@dataclass(frozen=True)
class Blob:
    """The bytes of a storage in the file.

    Attributes:
        start: offset in bytes.
        size: number of bytes.
    """

    start: int
    size: int


@dataclass(frozen=True)
class Storage:
    """Consecutive values that tensors share.

    Attributes:
        key: name of the storage in the file.
        dtype: dtype of the values.
        count: number of values.
        start: number of the first value; 0 except in legacy files.
    """

    key: str
    dtype: str
    count: int
    start: int

    @property
    def size(self) -> int:
        """Number of bytes."""
        return self.count * (2 if self.dtype == "bfloat16" else np.dtype(self.dtype).itemsize)


@dataclass(frozen=True)
class TensorView:
    """A strided view of a storage; `offset` and `stride` count values."""

    storage: Storage
    dtype: str
    offset: int
    shape: tuple[int, ...]
    stride: tuple[int, ...]

    @property
    def stored_dtype(self) -> str:
        """NumPy's dtype of the stored values; NumPy has no bfloat16."""
        return "uint16" if self.dtype == "bfloat16" else self.dtype

    @property
    def array_dtype(self) -> str:
        """The dtype of the array that the tensor is read into."""
        return "float32" if self.dtype == "bfloat16" else self.dtype

    @property
    def extent(self) -> int:
        """Number of values from the first to the last one in the view."""
        if 0 in self.shape:
            return 0
        return 1 + sum((n - 1) * step for n, step in zip(self.shape, self.stride, strict=True))

    def check(self, name: str, blobs: dict[str, Blob]) -> None:
        """Checks that all values of the tensor are inside its storage.

        Raises:
            UnreadableTorchFile: they are not.
        """
        numbers = (self.offset, *self.shape, *self.stride)
        if not all(isinstance(n, int) and n >= 0 for n in numbers):
            shown = reprlib.repr(numbers)  # of nested lists, repr could take forever
            raise UnreadableTorchFile(f"tensor {name!r} has offset, shape and strides {shown}")
        if self.storage.key not in blobs:
            raise UnreadableTorchFile(f"the bytes of tensor {name!r} are missing: it is truncated")
        needed = (self.offset + self.extent) * np.dtype(self.stored_dtype).itemsize
        size = blobs[self.storage.key].size
        if needed > size:
            raise UnreadableTorchFile(
                f"tensor {name!r} needs {needed} bytes of a storage that has {size}"
            )


class _StateDict(dict):
    """Replaces OrderedDict; attributes that PyTorch adds to it (module versions) are dropped."""

    def __setstate__(self, state: Any) -> None:
        pass


class _Ignored:
    """Replaces objects that are skipped."""

    def __init__(self, *args: Any) -> None:
        pass

    def __setstate__(self, state: Any) -> None:
        pass


class ByteReader(Protocol):
    """A file or memory map to read bytes from."""

    def read(self, size: int, /) -> bytes: ...

    def readline(self) -> bytes: ...


class _CompleteReads:
    """Reads all requested bytes or raises, so that a truncated name does not pass for a name."""

    def __init__(self, file: ByteReader) -> None:
        self._file = file

    def read(self, size: int) -> bytes:
        data = self._file.read(size)
        if len(data) < size:
            raise EOFError("the pickle ends early")
        return data

    def readline(self) -> bytes:
        line = self._file.readline()
        if not line.endswith(b"\n"):
            raise EOFError("the pickle ends early")
        return line


class StateDictUnpickler(pickle._Unpickler):
    """Unpickles state dicts only: each admitted name is replaced by an inert object.

    The base class is the unpickler in Python, because the one in C allocates gigabytes after a
    single wrong byte.

    Args:
        file: contains the pickle.

    Attributes:
        content: name of what the pickle may hold, for messages.
        advice: what to do about a pickle that holds anything else.
        storages: storages of the pickle, by key.
    """

    content = "a state dict"
    advice = "save its state_dict() alone with PyTorch"
    read: Callable[[int], bytes]  # set by the base class while it loads
    append: Callable[[Any], None]

    def __init__(self, file: ByteReader) -> None:
        super().__init__(_CompleteReads(file), encoding="utf-8")
        self.storages: dict[str, Storage] = {}

    def load_bytearray8(self) -> None:
        """Reads a bytearray as bytes; the base class allocates its declared size beforehand."""
        (size,) = struct.unpack("<Q", self.read(8))
        self.append(self.read(size))

    dispatch: ClassVar[dict[int, Callable[[Any], None]]] = {
        **pickle._Unpickler.dispatch,
        pickle.BYTEARRAY8[0]: load_bytearray8,
    }

    def find_class(self, module: str, name: str) -> Any:
        full = f"{module}.{name}"
        if full == "collections.OrderedDict":
            return _StateDict
        if full == "torch.Size":
            return tuple
        if module == "torch._utils" and name in ("_rebuild_tensor", "_rebuild_tensor_v2"):
            return self._tensor
        if full == "torch._utils._rebuild_tensor_v3":
            return self._tensor_of_dtype
        if full == "torch._utils._rebuild_parameter":
            return self._parameter
        if module in ("torch", "torch.storage") and name in STORAGES:
            return STORAGES[name]
        if module == "torch" and name in DTYPES:
            return name
        if full in IGNORED:
            return _Ignored
        raise UnreadableTorchFile(
            f"it names {full}, which is not part of {self.content} and might run code. If you "
            f"trust its source, {self.advice}"
        )

    def persistent_load(self, pid: Any) -> Storage:
        kind, dtype, key, _location, count, *view = pid
        if kind != "storage" or not isinstance(key, str) or dtype not in DTYPES:
            raise UnreadableTorchFile(
                f"it refers to {reprlib.repr(kind)}, where a state dict refers to storages"
            )
        start = 0
        if view and view[0] is not None:
            _view_key, start, _view_size = view[0]
        storage = Storage(key, dtype, count, start)
        if self.storages.setdefault(key, storage).size != storage.size:
            raise UnreadableTorchFile(f"storage {key!r} has two sizes")
        return storage

    def _tensor(
        self,
        storage: Storage,
        offset: int,
        shape: tuple,
        stride: tuple,
        requires_grad: bool = False,
        hooks: Any = None,
        metadata: Any = None,
    ) -> TensorView:
        return self._tensor_of_dtype(
            storage, offset, shape, stride, requires_grad, hooks, storage.dtype, metadata
        )

    def _tensor_of_dtype(
        self,
        storage: Storage,
        offset: int,
        shape: tuple,
        stride: tuple,
        requires_grad: bool,
        hooks: Any,
        dtype: str,
        metadata: Any = None,
    ) -> TensorView:
        if metadata:
            raise UnreadableTorchFile(
                f"it holds a tensor with metadata {reprlib.repr(metadata)}, not plain values"
            )
        if not isinstance(storage, Storage) or dtype not in DTYPES or len(shape) != len(stride):
            raise UnreadableTorchFile("it holds a malformed tensor")
        return TensorView(storage, dtype, storage.start + offset, tuple(shape), tuple(stride))

    def _parameter(self, data: TensorView, requires_grad: bool, hooks: Any) -> TensorView:
        return data
