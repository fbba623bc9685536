"""Photos in the rows of a memory-mapped table."""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING

import numpy as np

from effcap.images import StoredPhoto, UnreadablePhoto
from effcap.trainers.data.huggingface.row_columns import is_bytes

if TYPE_CHECKING:
    import pyarrow

DIGEST_BYTES = 16


class PhotoColumn:
    """A column of photos: bytes, paths, or both as {bytes, path}; see `is_image`.

    Args:
        column: the column of a memory-mapped table.
        source: the data, for messages.
        time_ns: time of modification of the table, in nanoseconds.

    Attributes:
        sizes: sizes of the photos in bytes, (N,); -1 for rows without bytes.
    """

    def __init__(self, column: pyarrow.ChunkedArray, source: str, time_ns: int):
        import pyarrow
        import pyarrow.compute

        self.source, self.time_ns = source, time_ns
        compute = pyarrow.compute
        if pyarrow.types.is_struct(column.type):
            self._bytes = compute.struct_field(column, "bytes")
            self._paths = compute.struct_field(column, "path")
        elif is_bytes(column.type):
            self._bytes, self._paths = column, None
        else:
            self._bytes, self._paths = None, column
        if self._bytes is None:
            self.sizes = np.full(len(column), -1)
        else:
            lengths = compute.fill_null(compute.binary_length(self._bytes), -1)
            self.sizes = lengths.to_numpy().astype(np.int64)  # (N,)
            self._chunks = self._bytes.chunks
            self._starts = np.cumsum([0, *map(len, self._chunks)])[:-1]

    def paths(self) -> list[str | None]:
        """Returns the path of each row; None for rows without."""
        return [None] * len(self.sizes) if self._paths is None else self._paths.to_pylist()

    def photo(self, row: int) -> RowPhoto:
        """Returns the photo of a row that has bytes."""
        return RowPhoto(self, row)

    def name(self, row: int) -> str:
        """Returns the name of a row for messages."""
        return f"{self.source}, row {row}"

    def read(self, row: int) -> bytes:
        """Returns a copy of the bytes of a row.

        Raises:
            UnreadablePhoto: the photo is empty.
        """
        if self.sizes[row] == 0:
            raise UnreadablePhoto(f"photo {self.name(row)!r}", "it is empty (0 bytes)")
        chunk = int(np.searchsorted(self._starts, row, "right")) - 1
        return self._chunks[chunk][row - int(self._starts[chunk])].as_py()


class RowPhoto(StoredPhoto):
    """The photo in a row of a `PhotoColumn`."""

    __slots__ = ("column", "row")

    def __init__(self, column: PhotoColumn, row: int):
        self.column, self.row = column, row

    @property
    def name(self) -> str:  # type: ignore[override]
        """Data and row, for messages."""
        return self.column.name(self.row)

    @property
    def size(self) -> int:  # type: ignore[override]
        """Size in bytes."""
        return int(self.column.sizes[self.row])

    @property
    def time_ns(self) -> int:  # type: ignore[override]
        """Time of modification of the table."""
        return self.column.time_ns

    def read(self) -> bytes:
        """Returns the bytes of the image file."""
        return self.column.read(self.row)

    def digest(self) -> bytes:
        """Returns a hash of the bytes."""
        return hashlib.blake2b(self.column.read(self.row), digest_size=DIGEST_BYTES).digest()
