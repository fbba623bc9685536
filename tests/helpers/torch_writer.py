"""Writes PyTorch files without PyTorch, well-formed and broken ones."""

from __future__ import annotations

import io
import pickle
import struct
import zipfile

import numpy as np

MAGIC = 0x1950A86A20F9469CFC6C


class Torch:
    """Writes by hand the pickles and files that torch.save writes, and broken ones."""

    def __init__(self):
        self.storages: dict[str, tuple[str, np.ndarray]] = {}

    def name(self, module: str, name: str) -> bytes:
        return f"c{module}\n{name}\n".encode()

    def value(self, value: object) -> bytes:
        """A plain value as opcodes: its pickle without the protocol and the stop."""
        return pickle.dumps(value, 2)[2:-1]

    def call(self, function: bytes, *arguments: bytes) -> bytes:
        return function + b"(" + b"".join(arguments) + b"tR"

    def tensor(self, key, offset, shape, stride, extra=b"", rebuild="_rebuild_tensor_v2") -> bytes:
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
        entries = b"".join(self.value(key) + value for key, value in items.items())
        return self.call(self.name("collections", "OrderedDict")) + b"(" + entries + b"u"

    def file(self, form: str, content: bytes, order: str = "little") -> bytes:
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
            for key, (_, values) in self.storages.items():
                archive.writestr(f"archive/data/{key}", values.tobytes())
        return file.getvalue()
