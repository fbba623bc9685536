"""Tests of tables of results in files."""

from __future__ import annotations

import csv
import json
import os
import sys

import pytest

from effcap.tools.evaluation.caption_files import read_captions
from effcap.tools.reports.tables import SUFFIXES, read_table, write_table

TEXTS = ('a "dog", and\na cat', " 猫 ", "")
SINGLE = [
    {"image": f"{i}.jpg", "caption": text, "score": -1.5 * i - 1} for i, text in enumerate(TEXTS)
]
SEVERAL = [{"image": "a,b.jpg", "captions": list(TEXTS), "scores": [-1.0, -2.5, -3.0]}]


def write(path, rows):
    if path.suffix == ".parquet":
        pytest.importorskip("pyarrow")
    write_table(path, rows)
    return path


@pytest.mark.parametrize("rows", (SINGLE, SEVERAL))
@pytest.mark.parametrize("suffix", SUFFIXES)
def test_tables_are_read_as_they_were_written(suffix, rows, tmp_path):
    path = write(tmp_path / "new" / f"table{suffix.upper()}", rows)
    assert read_table(path) == rows
    assert [path.name for path in path.parent.iterdir()] == [path.name]
    captions = [(x.photo, list(x.captions)) for x in read_captions(path)]
    assert captions == [(x["image"], x.get("captions") or [x["caption"]]) for x in rows]


def test_other_programs_read_the_tables(tmp_path):
    with write(tmp_path / "a.csv", SINGLE).open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["caption"] for row in rows] == list(TEXTS) and float(rows[1]["score"]) == -2.5
    lines = write(tmp_path / "a.jsonl", SEVERAL).read_text(encoding="utf-8").splitlines()
    assert [json.loads(line) for line in lines] == SEVERAL
    parquet = pytest.importorskip("pyarrow.parquet")
    assert parquet.read_table(write(tmp_path / "a.parquet", SINGLE)).to_pylist() == SINGLE


def test_columns_are_those_of_all_rows(tmp_path):
    rows = [{"image": "a", "reason": None}, {"image": "b", "reason": "x", "more": "y"}]
    assert write(tmp_path / "a.csv", rows).read_text() == "image,reason,more\na,,\nb,x,y\n"
    write(tmp_path / "b.parquet", rows)
    assert read_table(tmp_path / "b.parquet") == [{"image": "a"}, rows[1]]


def test_other_suffixes_are_refused(tmp_path):
    with pytest.raises(ValueError, match=r"out of .json, .*, .parquet. Received: .*\.txt"):
        write_table(tmp_path / "a.txt", SINGLE)


@pytest.mark.parametrize(
    ("name", "text"),
    (("a.json", "["), ("a.jsonl", "{}\n{"), ("a.csv", "image,scores\nx,[1\n"), ("a.csv", b"\xff")),
)
def test_damaged_tables_are_refused_with_their_path(name, text, tmp_path):
    (tmp_path / name).write_bytes(text if isinstance(text, bytes) else text.encode())
    with pytest.raises(ValueError, match=name):
        read_table(tmp_path / name)


def test_parquet_without_pyarrow_names_the_extra(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "pyarrow.parquet", None)
    with pytest.raises(ImportError, match=r"effcap\[parquet\]"):
        write_table(tmp_path / "a.parquet", SINGLE)


@pytest.mark.parametrize("suffix", (".json", ".jsonl", ".csv", ".parquet"))
def test_names_that_are_not_utf8_are_written_with_escapes(suffix, tmp_path):
    write_table(tmp_path / f"t{suffix}", [{"image": os.fsdecode(b"B\xe4r.jpg"), "score": 1.0}])
    assert read_table(tmp_path / f"t{suffix}")[0]["image"] == "B\\udce4r.jpg"
