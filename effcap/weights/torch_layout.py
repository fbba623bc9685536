"""Finds the pickle and the storages in a PyTorch file: a zip archive, or the format before 1.6."""

from __future__ import annotations

import io
import os
import struct
import zipfile
from dataclasses import dataclass
from typing import Any, Literal

from effcap.weights.torch_pickle import Blob, Buffer, StateDictUnpickler, UnreadableTorchFile
from effcap.weights.torch_script import ScriptUnpickler

# The pickled number that a legacy file starts with, after the two bytes of the pickle's protocol.
LEGACY_MAGIC = bytes.fromhex("8a0a6cfc9c46f9206aa850192e")
ZIP_MAGIC = b"PK\x03\x04"


@dataclass(frozen=True)
class Layout:
    """The contents of a file.

    Attributes:
        content: the unpickled object.
        blobs: bytes of the storages, by key.
        byte_order: "<" or ">".
    """

    content: Any
    blobs: dict[str, Blob]
    byte_order: Literal["<", ">"] = "<"


def read_layout(buffer: Buffer, source: str | os.PathLike | bytes) -> Layout:
    """Reads the layout of a file, without the values.

    Args:
        buffer: the file's bytes, possibly memory-mapped.
        source: its path, or its bytes.

    Raises:
        UnreadableTorchFile: torch.save has not written it, or it is damaged.
    """
    start = buffer[: 2 + len(LEGACY_MAGIC)]
    if start.startswith(ZIP_MAGIC):
        file = io.BytesIO(source) if isinstance(source, bytes) else source
        with zipfile.ZipFile(file) as archive:
            return _read_zip(buffer, archive)
    if start[2:] == LEGACY_MAGIC:
        return _read_legacy(buffer)
    raise UnreadableTorchFile(
        f"torch.save has not written it, or it is truncated: it starts {start!r}"
    )


def _read_zip(buffer: Buffer, archive: zipfile.ZipFile) -> Layout:
    """Reads `<folder>/data.pkl` and `<folder>/byteorder`, and locates `<folder>/data/<key>`.

    torch.jit.save writes `<folder>/constants.pkl` and `<folder>/code/` too, which are not read.
    """
    members = {info.filename: info for info in archive.infolist()}
    pickles = [name for name in members if name.count("/") == 1 and name.endswith("/data.pkl")]
    if len(pickles) != 1:
        raise UnreadableTorchFile(
            f"torch.save has not written it: it has {len(pickles)} members data.pkl"
        )
    folder = pickles[0].removesuffix("data.pkl")
    for name in (pickles[0], f"{folder}byteorder"):  # a few bytes could inflate to gigabytes
        if name in members:
            _check_stored(members[name])
    is_script = f"{folder}constants.pkl" in members
    unpickler_class = ScriptUnpickler if is_script else StateDictUnpickler
    unpickler = unpickler_class(io.BytesIO(archive.read(pickles[0])))
    content = unpickler.load()
    blobs = {}
    for key, storage in unpickler.storages.items():
        info = members.get(f"{folder}data/{key}")
        if info is None:
            raise UnreadableTorchFile(f"its member {folder}data/{key} is missing")
        _check_stored(info)
        # The values follow the member's own header: 30 bytes, its name and padding.
        header = buffer[info.header_offset : info.header_offset + 30]
        if not header.startswith(ZIP_MAGIC):
            raise UnreadableTorchFile(f"its member {info.filename} is damaged")
        start = info.header_offset + 30 + sum(struct.unpack("<HH", header[26:30]))
        if start + info.file_size > len(buffer):
            raise UnreadableTorchFile(f"its member {info.filename} is truncated")
        _check_header(buffer, info, start)
        if info.file_size != storage.size:
            raise UnreadableTorchFile(f"storage {key!r} has two sizes")
        blobs[key] = Blob(start, info.file_size)
    order = archive.read(f"{folder}byteorder") if f"{folder}byteorder" in members else b"little"
    if order not in (b"little", b"big"):
        raise UnreadableTorchFile(f"its byte order is {order!r}")
    return Layout(content, blobs, "<" if order == b"little" else ">")


def _check_stored(info: zipfile.ZipInfo) -> None:
    """Checks that a member of an archive is not compressed.

    Raises:
        UnreadableTorchFile: it is.
    """
    if info.compress_type != zipfile.ZIP_STORED:
        raise UnreadableTorchFile("it is compressed, which torch.save does not do")


def _check_header(buffer: Buffer, info: zipfile.ZipInfo, start: int) -> None:
    """Checks that a member's own header has its name and ends where its values start.

    Not every writer fills in checksums of the values, so nothing else reveals values read from
    wrong positions.

    Raises:
        UnreadableTorchFile: the header is damaged.
    """
    name = info.orig_filename.encode("utf-8" if info.flag_bits & 0x800 else "cp437")
    position = info.header_offset + 30 + len(name)
    if buffer[info.header_offset + 30 : position] != name:
        raise UnreadableTorchFile(f"its member {info.filename} is damaged")
    while position + 4 <= start:  # extra fields: two bytes of kind, two of size, contents
        kind, size = struct.unpack("<HH", buffer[position : position + 4])
        if kind == 0:
            break
        position += 4 + size
    if position != start:
        raise UnreadableTorchFile(f"its member {info.filename} is damaged")


def _read_legacy(buffer: Buffer) -> Layout:
    """Reads the format before PyTorch 1.6.

    It consists of five pickles (magic number, protocol, sizes of C's types, content, keys of the
    storages), then for each key the number of values in 8 bytes and the values, little-endian.
    """
    file = io.BytesIO(buffer) if isinstance(buffer, bytes) else buffer
    file.seek(0)
    for _ in range(3):
        StateDictUnpickler(file).load()
    unpickler = StateDictUnpickler(file)
    content = unpickler.load()
    keys = StateDictUnpickler(file).load()
    position, blobs = file.tell(), {}
    for key in keys:
        (count,) = struct.unpack_from("<q", buffer, position)
        size = unpickler.storages[key].size
        if count != unpickler.storages[key].count:
            raise UnreadableTorchFile(f"storage {key!r} has two sizes")
        position += 8
        if count < 0 or position + size > len(buffer):
            raise UnreadableTorchFile(f"storage {key!r} needs {size} bytes: it is truncated")
        blobs[key] = Blob(position, size)
        position += size
    return Layout(content, blobs)
