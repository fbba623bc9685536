"""Writes a table of everything that `index_shards` left out."""

from __future__ import annotations

import csv
from collections.abc import Iterator
from os import PathLike
from pathlib import Path

from effcap.tools.reports.tables import import_parquet
from effcap.tools.shards.check_result import SHARD, CheckedShard
from effcap.tools.shards.indexing import UNREADABLE, IndexSummary

COLUMNS = ("shard", "kind", "key", "reason", "detail")
SUFFIXES = (".csv", ".parquet")


def check_report(path: Path) -> None:
    """Checks that a report can be written; call this before indexing.

    Raises:
        ValueError: the suffix is neither .csv nor .parquet.
        IsADirectoryError: the path is a folder.
        ImportError: the report is a Parquet file and pyarrow is not installed.
    """
    if path.suffix.lower() not in SUFFIXES:
        raise ValueError(f"Expected a report FILE.csv or FILE.parquet. Received: {path}")
    if path.is_dir():
        raise IsADirectoryError(f"The report {path} is a folder, not a file")
    if path.suffix.lower() == ".parquet":
        import_parquet()


def write_index_report(path: str | PathLike, summary: IndexSummary) -> None:
    """Writes a row for everything left out, in the order of the shards.

    The columns are shard, kind ("sample", "caption" of a sample that is kept, or "shard"), key,
    reason and detail.

    Args:
        path: a .csv file (UTF-8) or a .parquet file.
        summary: result of `index_shards`, whose indexes still exist.

    Raises:
        ValueError: the suffix is neither .csv nor .parquet.
        ImportError: the report is a Parquet file and pyarrow is not installed.
    """
    path = Path(path)
    check_report(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    new = path.with_name(f".new-{path.name}")
    if path.suffix.lower() == ".csv":
        with new.open("w", encoding="utf-8", newline="") as file:
            writer = csv.writer(file)
            writer.writerow(COLUMNS)
            for rows in _rows(summary):
                writer.writerows(rows)
    else:
        import pyarrow
        from pyarrow import parquet

        schema = pyarrow.schema([(name, pyarrow.string()) for name in COLUMNS])
        with parquet.ParquetWriter(new, schema) as table_writer:
            for rows in _rows(summary):
                columns = zip(*rows, strict=True) if rows else [[] for _ in COLUMNS]
                arrays = [pyarrow.array(column, pyarrow.string()) for column in columns]
                table_writer.write_table(pyarrow.table(arrays, schema=schema))
    new.replace(path)


def _rows(summary: IndexSummary) -> Iterator[list[tuple[str, ...]]]:
    """Yields the rows of each shard."""
    for shard in summary.shards:
        if shard.error:
            yield [(shard.shard, SHARD, "", UNREADABLE, shard.error)]
        elif shard.counts:
            yield [(shard.shard, *entry) for entry in CheckedShard.read(shard.path).left_out]
