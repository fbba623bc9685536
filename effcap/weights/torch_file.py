"""Reads PyTorch's weight files without PyTorch and without running the pickle inside them.

`torch.save` writes a pickled description of the tensors and, apart from it, their bytes: in a zip
archive since PyTorch 1.6, one after the other in the file before. Unpickling calls whatever the
file names, so here it may name only what a state dict is made of.
"""

from __future__ import annotations

import io
import mmap
import os
import pickle
import struct
import zipfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

# The pickled number a file in the older format starts with, after the two bytes of its protocol.
_LEGACY_MAGIC = bytes.fromhex("8a0a6cfc9c46f9206aa850192e")
_ZIP_MAGIC = b"PK\x03\x04"

_STORAGES = {
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
_DTYPES = {*_STORAGES.values(), "uint16", "uint32", "uint64"}
# NumPy's part of a training checkpoint (scores, random state): admitted, but never rebuilt.
_IGNORED = {
    "numpy.ndarray",
    "numpy.dtype",
    "numpy.core.multiarray._reconstruct",
    "numpy.core.multiarray.scalar",
    "numpy._core.multiarray._reconstruct",
    "numpy._core.multiarray.scalar",
    "_codecs.encode",
}


def read_torch(source: str | os.PathLike | bytes, prefix: str = "") -> TorchFile:
    """Opens a file written by `torch.save` (.pth, .pt, .bin).

    Nothing in the file is run: it may name only dicts, tensors, parameters, storages, sizes and
    dtypes, and NumPy's arrays and scalars, which are left out.

    Args:
        source: path of the file, or its content.
        prefix: take only the tensors whose name starts so, and drop it from their names, as in
            "state_dict." for a training checkpoint.

    Returns:
        A mapping from the tensors' names to `numpy.ndarray`; a tensor's bytes are read when it is
        asked for. Names of nested dicts and lists are joined by dots. bfloat16 arrives as float32;
        what is no tensor is left out.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: the file is truncated, is not PyTorch's, names anything else than the above
            (the message says what), or no tensor's name starts with `prefix`.
    """
    return TorchFile(source, prefix)


class TorchFile(Mapping):
    """The tensors of a file written by `torch.save`, each read when asked for: see `read_torch`."""

    def __init__(self, source: str | os.PathLike | bytes, prefix: str = ""):
        self.name = "the given bytes" if isinstance(source, bytes) else os.fspath(source)
        self._buffer = source if isinstance(source, bytes) else _mapped(source)
        try:
            tensors, self._blobs, self._byte_order = _read(self._buffer, source)
            for name, tensor in tensors.items():
                tensor.check(name, self._blobs)
        except _Unreadable as error:
            raise ValueError(f"Cannot read {self.name}: {error}.") from None
        except Exception as error:  # a damaged pickle or archive can raise anything at all
            raise ValueError(
                f"Cannot read {self.name}: it is truncated or damaged "
                f"({type(error).__name__}: {error})."
            ) from error
        self._tensors = {
            name.removeprefix(prefix): tensor
            for name, tensor in tensors.items()
            if name.startswith(prefix)
        }
        if prefix and not self._tensors:
            raise ValueError(
                f"Cannot read {self.name}: none of its {len(tensors)} tensors has a name that "
                f"starts so. Received: prefix={prefix!r}; names start {list(tensors)[:3]}"
            )

    def __len__(self) -> int:
        return len(self._tensors)

    def __iter__(self) -> Iterator[str]:
        return iter(self._tensors)

    def __contains__(self, name: object) -> bool:
        return name in self._tensors  # without reading the tensor, as Mapping would

    def shape(self, name: str) -> tuple[int, ...]:
        """The tensor's shape, without reading its values."""
        return self._tensors[name].shape

    def dtype(self, name: str) -> str:
        """The dtype its values arrive in, without reading them."""
        return self._tensors[name].array_dtype

    def dense(self, name: str) -> bool:
        """Whether its values lie side by side, each of them once, in whatever order of axes."""
        tensor, step = self._tensors[name], 1
        for stride, size in sorted(zip(tensor.stride, tensor.shape, strict=True)):
            if size != 1 and stride != step:
                return False
            step *= size
        return True

    def __getitem__(self, name: str) -> np.ndarray:
        """The tensor's values, read anew each time: nothing of them is kept."""
        try:
            return self._values(self._tensors[name])
        finally:
            if hasattr(mmap, "MADV_DONTNEED") and isinstance(self._buffer, mmap.mmap):
                self._buffer.madvise(mmap.MADV_DONTNEED)  # what was read would stay in memory

    def _values(self, tensor: _Tensor) -> np.ndarray:
        if tensor.extent == 0:
            return np.empty(tensor.shape, tensor.array_dtype)
        dtype = np.dtype(tensor.stored_dtype).newbyteorder(self._byte_order)
        values = np.frombuffer(
            self._buffer,
            dtype,
            count=tensor.extent,
            offset=self._blobs[tensor.storage.key].start + tensor.offset * dtype.itemsize,
        )
        steps = [step * dtype.itemsize for step in tensor.stride]
        values = np.lib.stride_tricks.as_strided(values, tensor.shape, steps, writeable=False)
        if tensor.dtype == "bfloat16":  # the upper half of a float32
            wide = values.astype(np.uint32, order="C")
            wide <<= 16
            return wide.view(np.float32)
        return values.astype(tensor.array_dtype, order="C")


class _Unreadable(Exception):
    """Says why a file is not read; becomes the ValueError that names the file."""


@dataclass(frozen=True)
class _Blob:
    """Where a storage's bytes lie in the file."""

    start: int
    size: int


@dataclass(frozen=True)
class _Storage:
    """A run of values that tensors share; `start` counts values and is 0 in all but old files."""

    key: str
    dtype: str
    count: int
    start: int

    @property
    def size(self) -> int:
        """In bytes."""
        return self.count * (2 if self.dtype == "bfloat16" else np.dtype(self.dtype).itemsize)


@dataclass(frozen=True)
class _Tensor:
    """A strided view of a storage; offset and strides count values."""

    storage: _Storage
    dtype: str
    offset: int
    shape: tuple[int, ...]
    stride: tuple[int, ...]

    @property
    def stored_dtype(self) -> str:
        return "uint16" if self.dtype == "bfloat16" else self.dtype

    @property
    def array_dtype(self) -> str:
        return "float32" if self.dtype == "bfloat16" else self.dtype

    @property
    def extent(self) -> int:
        """Values from the first to the last one seen."""
        if 0 in self.shape:
            return 0
        return 1 + sum((n - 1) * step for n, step in zip(self.shape, self.stride, strict=True))

    def check(self, name: str, blobs: dict[str, _Blob]) -> None:
        """Raises `_Unreadable` unless every value of the tensor lies in its storage."""
        numbers = (self.offset, *self.shape, *self.stride)
        if not all(isinstance(n, int) and n >= 0 for n in numbers):
            raise _Unreadable(f"tensor {name!r} has offset, shape and strides {numbers}")
        if self.storage.key not in blobs:
            raise _Unreadable(f"the bytes of tensor {name!r} are missing: it is truncated")
        needed = (self.offset + self.extent) * np.dtype(self.stored_dtype).itemsize
        size = blobs[self.storage.key].size
        if needed > size:
            raise _Unreadable(f"tensor {name!r} needs {needed} bytes of a storage that has {size}")


class _StateDict(dict):
    """Stands for OrderedDict; what PyTorch hangs onto one (module versions) is dropped."""

    def __setstate__(self, state: Any) -> None:
        pass


class _Ignored:
    """Stands for what is admitted but not rebuilt."""

    def __init__(self, *args: Any):
        pass

    def __setstate__(self, state: Any) -> None:
        pass


class _WholeReads:
    """Reads all that is asked for, or raises: a name cut short must not pass for a name."""

    def __init__(self, file: io.BytesIO | mmap.mmap):
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


class _StateDictUnpickler(pickle._Unpickler):
    """Admits what a state dict is made of; each name stands for an inert one of ours.

    The unpickler written in Python, because one wrong byte makes C's allocate gigabytes.
    """

    def __init__(self, file: io.BytesIO | mmap.mmap):
        super().__init__(_WholeReads(file), encoding="utf-8")
        self.storages: dict[str, _Storage] = {}

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
        if module in ("torch", "torch.storage") and name in _STORAGES:
            return _STORAGES[name]
        if module == "torch" and name in _DTYPES:
            return name
        if full in _IGNORED:
            return _Ignored
        raise _Unreadable(
            f"it names {full}, which is no part of a state dict and might run code. If you trust "
            "where it comes from, save its state_dict() alone with PyTorch"
        )

    def persistent_load(self, pid: Any) -> _Storage:
        kind, dtype, key, _location, count, *view = pid
        if kind != "storage" or not isinstance(key, str) or dtype not in _DTYPES:
            raise _Unreadable(f"it refers to {kind!r}, where a state dict refers to storages")
        start = 0
        if view and view[0] is not None:
            _view_key, start, _view_size = view[0]
        storage = _Storage(key, dtype, count, start)
        if self.storages.setdefault(key, storage).size != storage.size:
            raise _Unreadable(f"storage {key!r} has two sizes")
        return storage

    def _tensor(
        self,
        storage: _Storage,
        offset: int,
        shape: tuple,
        stride: tuple,
        requires_grad: bool = False,
        hooks: Any = None,
        metadata: Any = None,
    ) -> _Tensor:
        return self._tensor_of_dtype(
            storage, offset, shape, stride, requires_grad, hooks, storage.dtype, metadata
        )

    def _tensor_of_dtype(
        self,
        storage: _Storage,
        offset: int,
        shape: tuple,
        stride: tuple,
        requires_grad: bool,
        hooks: Any,
        dtype: str,
        metadata: Any = None,
    ) -> _Tensor:
        if metadata:
            raise _Unreadable(f"it holds a tensor with metadata {metadata!r}, not plain values")
        if not isinstance(storage, _Storage) or dtype not in _DTYPES or len(shape) != len(stride):
            raise _Unreadable("it holds a malformed tensor")
        return _Tensor(storage, dtype, storage.start + offset, tuple(shape), tuple(stride))

    def _parameter(self, data: _Tensor, requires_grad: bool, hooks: Any) -> _Tensor:
        return data


def _mapped(path: str | os.PathLike) -> mmap.mmap | bytes:
    with open(path, "rb") as file:
        if os.fstat(file.fileno()).st_size == 0:
            return b""  # an empty file cannot be mapped
        return mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)


def _read(
    buffer: mmap.mmap | bytes, source: str | os.PathLike | bytes
) -> tuple[dict[str, _Tensor], dict[str, _Blob], str]:
    """Tensors by name, blobs by storage key and the byte order ("<" or ">")."""
    start = buffer[: 2 + len(_LEGACY_MAGIC)]
    if start.startswith(_ZIP_MAGIC):
        file = io.BytesIO(source) if isinstance(source, bytes) else source
        with zipfile.ZipFile(file) as archive:
            content, blobs, byte_order = _read_zip(buffer, archive)
    elif start[2:] == _LEGACY_MAGIC:
        content, blobs, byte_order = *_read_legacy(buffer), "<"
    else:
        raise _Unreadable(f"torch.save has not written it, or it is truncated: it starts {start!r}")
    tensors: dict[str, _Tensor] = {}
    for name, tensor in _tensors("", content):
        if name in tensors:
            raise _Unreadable(f"it holds two tensors of the name {name!r}")
        tensors[name] = tensor
    return tensors, blobs, byte_order


def _read_zip(
    buffer: mmap.mmap | bytes, archive: zipfile.ZipFile
) -> tuple[Any, dict[str, _Blob], str]:
    """Content, blobs and byte order of `<folder>/data.pkl`, `<folder>/data/<key>`, ..."""
    members = {info.filename: info for info in archive.infolist()}
    pickles = [name for name in members if name.count("/") == 1 and name.endswith("/data.pkl")]
    if len(pickles) != 1:
        raise _Unreadable(f"torch.save has not written it: it has {len(pickles)} members data.pkl")
    folder = pickles[0].removesuffix("data.pkl")
    unpickler = _StateDictUnpickler(io.BytesIO(archive.read(pickles[0])))
    content = unpickler.load()
    blobs = {}
    for key in unpickler.storages:
        info = members.get(f"{folder}data/{key}")
        if info is None:
            raise _Unreadable(f"its member {folder}data/{key} is missing")
        if info.compress_type != zipfile.ZIP_STORED:
            raise _Unreadable("it was zipped anew: torch.save does not compress")
        # The member's own header comes first: 30 bytes, its name and padding.
        header = buffer[info.header_offset : info.header_offset + 30]
        if not header.startswith(_ZIP_MAGIC):
            raise _Unreadable(f"its member {info.filename} is damaged")
        start = info.header_offset + 30 + sum(struct.unpack("<HH", header[26:30]))
        if start + info.file_size > len(buffer):
            raise _Unreadable(f"its member {info.filename} is truncated")
        _check_header(buffer, info, start)
        if info.file_size != unpickler.storages[key].size:
            raise _Unreadable(f"storage {key!r} has two sizes")
        blobs[key] = _Blob(start, info.file_size)
    order = archive.read(f"{folder}byteorder") if f"{folder}byteorder" in members else b"little"
    if order not in (b"little", b"big"):
        raise _Unreadable(f"its byte order is {order!r}")
    return content, blobs, "<" if order == b"little" else ">"


def _check_header(buffer: mmap.mmap | bytes, info: zipfile.ZipInfo, start: int) -> None:
    """Raises `_Unreadable` unless a member's own header says where it starts and whose it is.

    The values have no checksum that every writer fills in, so nothing else would tell of values
    read from the wrong place.
    """
    name = info.orig_filename.encode("utf-8" if info.flag_bits & 0x800 else "cp437")
    at = info.header_offset + 30 + len(name)
    if buffer[info.header_offset + 30 : at] != name:
        raise _Unreadable(f"its member {info.filename} is damaged")
    while at + 4 <= start:  # extra fields: two bytes of kind, two of size, contents
        kind, size = struct.unpack("<HH", buffer[at : at + 4])
        if kind == 0:
            break
        at += 4 + size
    if at != start:
        raise _Unreadable(f"its member {info.filename} is damaged")


def _read_legacy(buffer: mmap.mmap | bytes) -> tuple[Any, dict[str, _Blob]]:
    """Content and blobs of the format before PyTorch 1.6.

    Five pickles: magic number, protocol, sizes of C's types, content, keys of the storages; then
    for each key the number of values (8 bytes) and the values, always little-endian.
    """
    file = io.BytesIO(buffer) if isinstance(buffer, bytes) else buffer
    file.seek(0)
    for _ in range(3):
        _StateDictUnpickler(file).load()
    unpickler = _StateDictUnpickler(file)
    content = unpickler.load()
    keys = _StateDictUnpickler(file).load()
    position, blobs = file.tell(), {}
    for key in keys:
        (count,) = struct.unpack_from("<q", buffer, position)
        size = unpickler.storages[key].size
        if count != unpickler.storages[key].count:
            raise _Unreadable(f"storage {key!r} has two sizes")
        position += 8
        if count < 0 or position + size > len(buffer):
            raise _Unreadable(f"storage {key!r} needs {size} bytes: it is truncated")
        blobs[key] = _Blob(position, size)
        position += size
    return content, blobs


def _tensors(prefix: str, value: Any) -> Iterator[tuple[str, _Tensor]]:
    """All tensors in nested dicts, lists and tuples, with the keys that lead to them."""
    if isinstance(value, _Tensor):
        if not prefix:
            raise _Unreadable("it holds a single tensor without a name, not a state dict")
        yield prefix, value
    elif isinstance(value, dict | list | tuple):
        items = value.items() if isinstance(value, dict) else enumerate(value)
        for key, child in items:
            yield from _tensors(f"{prefix}.{key}" if prefix else str(key), child)
