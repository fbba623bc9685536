"""Tests of the helpers for caption files."""

from __future__ import annotations

import io

import pytest

from effcap.trainers.data.text_files import CaptionTable, read_files, read_text, split_lines


@pytest.mark.parametrize(
    "text", ("", "a", "a\n", "\n\na\r\rb\r\n\r\nc", "a\u2028b\x0bc\x1cd\x85e\nf", "\r\n\n\r")
)
def test_lines_are_split_as_python_reads_files(text):
    assert list(split_lines(text)) == list(io.StringIO(text, newline=""))


def test_text_is_read_with_and_without_byte_order_mark(tmp_path):
    for mark in ("", "\ufeff"):
        (tmp_path / "a").write_text(mark + "é東", encoding="utf-8")
        assert read_text(tmp_path / "a", "CSV") == "é東"


def test_every_caption_is_kept_or_counted_as_a_problem(tmp_path):
    table = CaptionTable(tmp_path, edit=lambda text: text.replace("x", ""))
    table.add("1", " a.jpg ", ["A", "A", " ", 5, "xx", "B\0", "\ud800", {"k": 1}])
    table.add("2", "b\0.jpg", ["A", "B"])
    table.add("3", "./a.jpg", ["C"])
    table.add("4", "only.jpg", [""])
    assert [(p.name, p.captions) for p in table.examples()] == [("a.jpg", ("A", "A", "C"))]
    assert [problem.where for problem in table.problems] == ["1"] * 6 + ["2", "4"]
    assert sum(problem.num_captions for problem in table.problems) == 9


def test_photos_and_problems_of_several_files_keep_their_order(tmp_path):
    def read(path):
        table = CaptionTable(tmp_path)
        table.add(str(path), "same.jpg", [path.name, ""])
        table.add(str(path), f"{path.name}.jpg", ["own"])
        return table.examples(), table.problems

    examples, problems = read_files(read, ["one", "two"])
    assert [(p.name, p.captions) for p in examples] == [
        ("same.jpg", ("one", "two")), ("one.jpg", ("own",)), ("two.jpg", ("own",)),
    ]  # fmt: skip
    assert [problem.where for problem in problems] == ["one", "two"]
