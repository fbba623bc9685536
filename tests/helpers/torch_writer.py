"""Writes PyTorch files without PyTorch, well-formed and broken ones."""

from __future__ import annotations

import io
import pickle
import struct
import zipfile
from collections.abc import Mapping
from typing import Any

import numpy as np

MAGIC = 0x1950A86A20F9469CFC6C
STORAGES = {
    "float32": "FloatStorage",
    "float16": "HalfStorage",
    "int64": "LongStorage",
    "uint8": "ByteStorage",
}


def checkpoint(content: Mapping[str, Any], form: str = "zip") -> bytes:
    """Returns a file of torch.save with nested dicts of arrays and plain values."""
    torch = Torch()

    def opcodes(value: Any) -> bytes:
        if isinstance(value, Mapping):
            return torch.dict(**{key: opcodes(child) for key, child in value.items()})
        if not isinstance(value, np.ndarray):
            return torch.value(value)
        key, stride = str(len(torch.storages)), 1
        strides = []
        for size in reversed(value.shape):
            strides.append(stride)
            stride *= size
        torch.storages[key] = (STORAGES[value.dtype.name], value.ravel())
        return torch.tensor(key, 0, value.shape, tuple(strides[::-1]))

    return torch.file(form, opcodes(content))


class Torch:
    """Writes the pickles and files of torch.save opcode by opcode."""

    def __init__(self):
        self.storages: dict[str, tuple[str, np.ndarray]] = {}

    def name(self, module: str, name: str) -> bytes:
        """Returns the opcodes of a global, such as torch.FloatStorage."""
        return f"c{module}\n{name}\n".encode()

    def value(self, value: object) -> bytes:
        """Returns the opcodes of a plain value: its pickle without protocol and stop."""
        return pickle.dumps(value, 2)[2:-1]

    def call(self, function: bytes, *arguments: bytes) -> bytes:
        """Returns the opcodes of a call."""
        return function + b"(" + b"".join(arguments) + b"tR"

    def tensor(self, key, offset, shape, stride, extra=b"", rebuild="_rebuild_tensor_v2") -> bytes:
        """Returns the opcodes of a tensor that views the storage `key`."""
        kind, values = self.storages[key]
        pid = [self.value("storage"), self.name("torch", kind), self.value(key), self.value("cpu")]
        pid += [self.value(len(values))]
        storage = b"(" + b"".join(pid) + b"tQ"
        numbers = [self.value(number) for number in (offset, shape, stride)]
        hooks = self.call(self.name("collections", "OrderedDict"))
        return self.call(
            self.name("torch._utils", rebuild), storage, *numbers, self.value(False), hooks, extra
        )

    def dict(self, **items: bytes) -> bytes:
        """Returns the opcodes of an ordered dictionary."""
        entries = b"".join(self.value(key) + value for key, value in items.items())
        return self.call(self.name("collections", "OrderedDict")) + b"(" + entries + b"u"

    def array(self, values: np.ndarray) -> bytes:
        """Returns the opcodes of a tensor with a storage of its own."""
        key = str(len(self.storages))
        self.storages[key] = (STORAGES[values.dtype.name], values.ravel())
        stride = [step // values.itemsize for step in np.ascontiguousarray(values).strides]
        return self.tensor(key, 0, values.shape, tuple(stride[: values.ndim]))

    def module(self, attributes: dict[str, object]) -> bytes:
        """Returns the opcodes of a TorchScript module.

        Args:
            attributes: arrays, dicts of the attributes of submodules, opcodes, or plain values.
        """
        entries = b""
        for name, value in attributes.items():
            entries += self.value(name)
            if isinstance(value, bytes):
                entries += value
            elif isinstance(value, dict):
                entries += self.module(value)
            else:
                is_array = isinstance(value, np.ndarray)
                entries += self.array(value) if is_array else self.value(value)
        return self.name("__torch__.clip.model", "Module") + b")\x81}(" + entries + b"ub"

    def file(self, form: str, content: bytes, order: str = "little") -> bytes:
        """Returns a whole file, "zip", "legacy" or "script", with all storages.

        A "script" is a zip archive with a program beside the tensors, as of torch.jit.save.
        """
        content = b"\x80\x02" + content + b"."
        file = io.BytesIO()
        if form == "legacy":
            for value in (MAGIC, 1001, {"little_endian": True}):
                pickle.dump(value, file, 2)
            file.write(content)
            pickle.dump(list(self.storages), file, 2)
            for _, values in self.storages.values():
                file.write(struct.pack("<q", len(values)) + values.tobytes())
            return file.getvalue()
        with zipfile.ZipFile(file, "w") as archive:
            archive.writestr("archive/data.pkl", content)
            archive.writestr("archive/byteorder", order)
            if form == "script":
                archive.writestr("archive/constants.pkl", b"\x80\x02).")
                archive.writestr(
                    "archive/code/__torch__/clip/model.py", "class Module(Module): ..."
                )
            for key, (_, values) in self.storages.items():
                archive.writestr(f"archive/data/{key}", values.tobytes())
        return file.getvalue()


def write_state_dict(tensors: dict[str, np.ndarray]) -> bytes:
    """Returns a file of torch.save with a state dict."""
    torch = Torch()
    return torch.file("zip", torch.dict(**{name: torch.array(x) for name, x in tensors.items()}))


def write_script(tensors: dict[str, np.ndarray]) -> bytes:
    """Returns a file of torch.jit.save with tensors whose names are paths of modules."""
    torch, tree = Torch(), {}
    for name, values in tensors.items():
        *path, last = name.split(".")
        module = tree
        for part in path:
            module = module.setdefault(part, {"training": False})
        module[last] = values
    return torch.file("script", torch.module(tree))
