"""Writes photos with captions as Parquet files, as the Hugging Face hub has them."""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pyarrow
import pyarrow.parquet

IMAGE = pyarrow.struct([("bytes", pyarrow.binary()), ("path", pyarrow.string())])


def image_rows(folder: Path, data: Sequence[tuple[str, Sequence[str]]]) -> list[dict[str, Any]]:
    """Returns a row {"image": {"bytes", "path"}, "captions"} for each photo of a folder."""
    return [
        {
            "image": {"bytes": (folder / name).read_bytes(), "path": name},
            "captions": list(captions),
        }
        for name, captions in data
    ]


def parquet_bytes(rows: Sequence[Mapping[str, Any]], **types: pyarrow.DataType) -> bytes:
    """Returns a Parquet file of rows in groups of 5, or one group with types of some columns."""
    table = pyarrow.Table.from_pylist(rows)
    for name, kind in types.items():
        values = pyarrow.array([row.get(name) for row in rows], kind)
        table = table.set_column(table.schema.get_field_index(name), name, values)
    file = io.BytesIO()
    pyarrow.parquet.write_table(table, file, row_group_size=None if types else 5)
    return file.getvalue()


def write_parquet(path: Path, rows: Sequence[Mapping[str, Any]], **types: pyarrow.DataType) -> Path:
    """Writes `parquet_bytes`, with missing folders."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(parquet_bytes(rows, **types))
    return path
