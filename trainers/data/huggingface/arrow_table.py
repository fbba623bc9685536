"""Converts Parquet files to a memory-mapped Arrow table, whose rows are read in any order.

Parquet is compressed by groups of rows: to read one photo, a hundred others would be decompressed
with it. `datasets` converts the files once, in batches, and keeps the result in its cache.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from effcap.trainers.data.example import one_line
from effcap.trainers.data.huggingface.split_files import SplitFiles, import_datasets

if TYPE_CHECKING:
    import pyarrow


class ArrowTable(NamedTuple):
    """A memory-mapped table.

    Attributes:
        table: the rows.
        time_ns: time of modification of its file, in nanoseconds.
    """

    table: pyarrow.Table
    time_ns: int


def read_schema(split: SplitFiles) -> pyarrow.Schema:
    """Returns the names and types of the columns of Parquet files.

    Raises:
        ValueError: a file is damaged, or has other columns than the first one.
    """
    files = [file for files in split.files.values() for file in files]
    first = _read_schema(files[0])
    for file in files[1:]:
        schema = _read_schema(file)
        if set(schema.names) != set(first.names):
            raise ValueError(
                f"Expected the columns {', '.join(first.names)} of {files[0]} in all files. "
                f"Received: {', '.join(schema.names)} in {file}"
            )
    return first


def read_table(split: SplitFiles, columns: Sequence[str]) -> ArrowTable:
    """Reads columns of a split through the cache of `datasets`.

    Args:
        split: the Parquet files.
        columns: names of the columns.

    Raises:
        ValueError: there are no such rows, or the files are damaged or have different types.
        OSError: there is not enough disk space.
    """
    datasets = import_datasets()
    files = {name: [os.path.abspath(file) for file in files] for name, files in split.files.items()}
    try:
        # Only this builder is used: it reads Parquet and runs no code of the data.
        builder = datasets.load_dataset_builder("parquet", data_files=files, columns=list(columns))
        builder.download_and_prepare()
        dataset = builder.as_dataset(split=split.split)
    except OSError:
        raise
    except Exception as error:  # pyarrow and `datasets` raise errors of many kinds
        cause = error.__cause__ or error
        raise ValueError(
            f"Cannot read {split.source}, split {split.split}: {one_line(str(cause))}"
        ) from error
    if len(dataset) == 0:
        raise ValueError(f"There are no rows in {split.source}, split {split.split}")
    times = [os.stat(file["filename"]).st_mtime_ns for file in dataset.cache_files]
    return ArrowTable(dataset.data.table, max(times, default=0))


def _read_schema(file: Path) -> pyarrow.Schema:
    import pyarrow
    from pyarrow import parquet

    try:
        return parquet.read_schema(file)
    except pyarrow.ArrowException as error:
        raise ValueError(
            f"Expected a Parquet file. Received: {file}, which is damaged or of another format: "
            f"{one_line(str(error))}"
        ) from error
