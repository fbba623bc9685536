"""Converts Parquet files to a memory-mapped Arrow table, whose rows are read in any order.

Parquet is compressed by groups of rows: to read one photo, a hundred others would be decompressed
with it. The files are converted once, in batches, and `datasets` keeps the result in its cache.
"""

from __future__ import annotations

import glob
import os
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from effcap.trainers.data.example import one_line
from effcap.trainers.data.huggingface.row_columns import plain_type
from effcap.trainers.data.huggingface.split_files import SplitFiles, import_datasets
from effcap.utils.progress import ProgressBar

if TYPE_CHECKING:
    import pyarrow

    from effcap.trainers.data.huggingface.parquet_builder import StreamedParquet


class ArrowTable(NamedTuple):
    """A memory-mapped table.

    Attributes:
        table: the rows.
        time_ns: time of modification of its file, in nanoseconds.
    """

    table: pyarrow.Table
    time_ns: int


def read_schema(split: SplitFiles) -> pyarrow.Schema:
    """Returns the names and plain types of the columns of Parquet files; see `plain_type`.

    Raises:
        ValueError: a file is damaged, or has other columns than the first one.
    """
    import pyarrow

    files = [file for files in split.files.values() for file in files]
    first = _read_schema(files[0])
    for file in files[1:]:
        schema = _read_schema(file)
        if set(schema.names) != set(first.names):
            raise ValueError(
                f"Expected the columns {', '.join(first.names)} of {files[0]} in all files. "
                f"Received: {', '.join(schema.names)} in {file}"
            )
    return pyarrow.schema([(field.name, plain_type(field.type)) for field in first])


def read_table(split: SplitFiles, columns: Sequence[pyarrow.Field]) -> ArrowTable:
    """Reads columns of a split through the cache of `datasets`.

    Args:
        split: the Parquet files.
        columns: names and types of the columns.

    Raises:
        ValueError: there are no such rows, or the files are damaged or have different types.
        OSError: there is not enough disk space.
    """
    datasets = import_datasets()
    import pyarrow

    from effcap.trainers.data.huggingface.parquet_builder import VERSION, StreamedParquet

    files = {
        name: [glob.escape(os.path.abspath(file)) for file in files]
        for name, files in split.files.items()
    }
    if not _count_rows(split):
        raise ValueError(f"There are no rows in {split.source}, split {split.split}")
    try:
        builder = StreamedParquet(
            data_files=files,
            columns=[field.name for field in columns],
            features=datasets.Features.from_arrow_schema(pyarrow.schema(columns)),
            hash=VERSION,
        )
        _convert(builder, split)
        dataset = builder.as_dataset(split=split.split)
    except OSError:
        raise
    except Exception as error:  # pyarrow and `datasets` raise errors of many kinds
        cause = error.__cause__ or error
        raise ValueError(
            f"Cannot read {split.source}, split {split.split}: {one_line(str(cause))}"
        ) from error
    times = [os.stat(file["filename"]).st_mtime_ns for file in dataset.cache_files]
    return ArrowTable(dataset.data.table, max(times, default=0))


def _convert(builder: StreamedParquet, split: SplitFiles) -> None:
    """Converts Parquet files to Arrow files in the cache, with a progress bar, if they are not."""
    datasets = import_datasets()
    hidden = datasets.utils.are_progress_bars_disabled()
    datasets.disable_progress_bars()  # they know no end
    try:
        if Path(builder.cache_dir).is_dir():
            builder.download_and_prepare()
            return
        with ProgressBar(f"converting {split.source}", _count_rows(split)) as bar:
            builder.advance = lambda rows: bar.advance(steps=rows)
            builder.download_and_prepare()
    finally:
        if not hidden:
            datasets.enable_progress_bars()


def _count_rows(split: SplitFiles) -> int:
    from pyarrow import parquet

    return sum(
        parquet.read_metadata(file).num_rows for files in split.files.values() for file in files
    )


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
