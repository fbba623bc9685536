"""Edits of byte ranges, which leave all other bytes of a file as they are."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from typing import BinaryIO, Literal, NamedTuple

CHUNK = 2**20  # bytes
Kind = Literal["xmp", "exif"]


class MetadataError(ValueError):
    """Metadata that cannot be read or written, with the reason."""


class Edit(NamedTuple):
    """New contents of the bytes from `start` to before `stop`, an insertion if both are equal."""

    start: int
    stop: int
    data: bytes


def file_size(file: BinaryIO) -> int:
    """Returns the number of bytes of an open file."""
    return file.seek(0, os.SEEK_END)


def read_range(file: BinaryIO, start: int, stop: int) -> bytes:
    """Returns the bytes from `start` to before `stop`.

    Raises:
        MetadataError: the file ends before.
    """
    file.seek(start)
    data = file.read(max(stop - start, 0))
    if len(data) != stop - start:
        raise MetadataError("the file ends early")
    return data


def edited(file: BinaryIO, edits: Sequence[Edit]) -> Iterator[bytes]:
    """Yields the contents of a file with some ranges replaced.

    Args:
        file: seekable file.
        edits: edits of ranges that do not overlap, in any order. Insertions at the same place are
            in the given order.
    """
    position = 0
    for start, stop, data in [*sorted(edits, key=lambda edit: edit[:2]), Edit(-1, -1, b"")]:
        end = file_size(file) if start < 0 else start
        while position < end:
            chunk = read_range(file, position, min(position + CHUNK, end))
            position += len(chunk)
            yield chunk
        if start >= 0:
            yield data
            position = stop
