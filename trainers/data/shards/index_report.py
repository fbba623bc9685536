"""A table of all that was left out of the indexes of shards."""

from __future__ import annotations

import csv
from collections.abc import Iterator
from pathlib import Path

from effcap.trainers.data.shards.check_result import SHARD, Checked
from effcap.trainers.data.shards.indexing import UNREADABLE, IndexSummary

COLUMNS = ("shard", "what", "key", "reason", "detail")
SUFFIXES = (".csv", ".parquet")


def check_report(path: Path) -> None:
    """ValueError unless a report can be written there; before the work is done."""
    if path.suffix.lower() not in SUFFIXES:
        raise ValueError(f"Expected a report FILE.csv or FILE.parquet. Received: {path}")
    if path.is_dir():
        raise IsADirectoryError(f"Expected a file to write. Received: {path}, a folder")
    if path.suffix.lower() == ".parquet":
        try:
            import pyarrow  # noqa: F401
        except ImportError:
            raise ValueError(
                "Expected the package pyarrow for a Parquet report (pip install "
                f"'effcap[parquet]'), or a report FILE.csv. Received: {path} without it"
            ) from None


def write_report(path: Path, summary: IndexSummary) -> None:
    """Writes a row for everything left out, shard by shard.

    Columns: shard; what: "sample", "caption" (of a sample that is kept) or "shard"; key; reason;
    detail.

    Args:
        path: a CSV file in UTF-8, or a Parquet file, by its suffix.
        summary: of `index_shards`, whose indexes are there.
    """
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
        with parquet.ParquetWriter(new, schema) as writer:
            for rows in _rows(summary):
                columns = zip(*rows, strict=True) if rows else [[] for _ in COLUMNS]
                arrays = [pyarrow.array(column, pyarrow.string()) for column in columns]
                writer.write_table(pyarrow.table(arrays, schema=schema))
    new.replace(path)


def _rows(summary: IndexSummary) -> Iterator[list[tuple[str, ...]]]:
    """The rows of one shard after the other."""
    for shard in summary.shards:
        if shard.problem:
            yield [(shard.shard, SHARD, "", UNREADABLE, shard.problem)]
        elif shard.counts:
            yield [(shard.shard, *entry) for entry in Checked.read(shard.path).left_out]
