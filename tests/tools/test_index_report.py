"""Tests of effcap.tools.shards.write_index_report."""

from __future__ import annotations

import csv
import sys
from pathlib import Path

import pytest

from effcap.tools.shards import index_shards, write_index_report
from effcap.tools.shards.index_report import COLUMNS, check_report
from effcap.trainers.data.shards import Filters
from helpers.tar_maker import captioned, sample, write_tar


@pytest.fixture
def summary(tmp_path):
    bad = [("1,2\n.jpg", b""), ("1,2\n.txt", b"A dog.")]
    shards = [
        write_tar(tmp_path / "0.tar", sample("0") + bad),
        write_tar(tmp_path / "1.tar", sample("3")),
        write_tar(tmp_path / "2.tar", captioned("4", {"captions": ["A cat.", "", "A dog."]})),
        str(tmp_path / "none.tar"),
    ]
    (tmp_path / "none.tar").touch()
    return index_shards(shards, Filters(max_duplicates=2))


EXPECTED = [
    ("0.tar", "sample", "1,2\n", "image unreadable"),
    ("2.tar", "caption", "4", "caption empty"),
    ("2.tar", "caption", "4", "duplicate caption"),
    ("none.tar", "shard", "", "shard unreadable"),
]


def short(row: list[str]) -> tuple[str, ...]:
    return (row[0].rpartition("/")[2], *row[1:4])


def test_a_csv_has_a_row_for_everything_left_out(summary, tmp_path):
    write_index_report(tmp_path / "new" / "report.csv", summary)
    with (tmp_path / "new" / "report.csv").open(encoding="utf-8", newline="") as file:
        header, *rows = csv.reader(file)
    assert tuple(header) == COLUMNS and [short(row) for row in rows] == EXPECTED
    assert sum(summary.counts.values()) == len(rows)


def test_a_parquet_file_has_the_same_rows(summary, tmp_path):
    parquet = pytest.importorskip("pyarrow.parquet")
    write_index_report(tmp_path / "report.parquet", summary)
    table = parquet.read_table(tmp_path / "report.parquet").to_pylist()
    assert [short(list(row.values())) for row in table] == EXPECTED
    assert tuple(table[0]) == COLUMNS


@pytest.mark.parametrize("suffix", (".csv", ".parquet"))
def test_a_report_of_nothing_has_only_a_header(tmp_path, suffix):
    if suffix == ".parquet":
        pytest.importorskip("pyarrow")
    path = tmp_path / f"report{suffix}"
    write_index_report(path, index_shards([write_tar(tmp_path / "0.tar", sample("0"))]))
    if suffix == ".csv":
        assert path.read_text().split() == [",".join(COLUMNS)]
    else:
        from pyarrow import parquet

        assert parquet.read_table(path).num_rows == 0


def test_reports_that_cannot_be_written_raise_an_error_early(tmp_path, monkeypatch):
    with pytest.raises(ValueError, match=r"FILE\.csv or FILE\.parquet\. Received: a\.txt"):
        check_report(Path("a.txt"))
    (tmp_path / "a.csv").mkdir()
    with pytest.raises(IsADirectoryError):
        check_report(tmp_path / "a.csv")
    monkeypatch.setitem(sys.modules, "pyarrow.parquet", None)
    with pytest.raises(ImportError, match="effcap\\[parquet\\]"):
        check_report(tmp_path / "a.parquet")
