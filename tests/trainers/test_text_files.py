"""What readers of caption files share."""

from __future__ import annotations

import io

import pytest

from effcap.trainers.data.text_files import Collector, lines_of, read_several, read_text


@pytest.mark.parametrize(
    "text", ("", "a", "a\n", "\n\na\r\rb\r\n\r\nc", "a\u2028b\x0bc\x1cd\x85e\nf", "\r\n\n\r")
)
def test_lines_end_as_those_of_files_do_and_nothing_is_lost(text):
    assert list(lines_of(text)) == list(io.StringIO(text, newline=""))


def test_text_is_read_with_and_without_a_byte_order_mark(tmp_path):
    for mark in ("", "\ufeff"):
        (tmp_path / "a").write_text(mark + "é東", encoding="utf-8")
        assert read_text(tmp_path / "a", "CSV") == "é東"


def test_every_caption_is_kept_or_counted_as_a_problem(tmp_path):
    found = Collector(tmp_path, edit=lambda text: text.replace("x", ""))
    found.add("1", " a.jpg ", ["A", "A", " ", 5, "xx", "B\0", "\ud800", {"k": 1}])
    found.add("2", "b\0.jpg", ["A", "B"])
    found.add("3", "./a.jpg", ["C"])
    found.add("4", "only.jpg", [""])
    assert [(p.name, p.captions) for p in found.photos()] == [("a.jpg", ("A", "A", "C"))]
    assert [problem.where for problem in found.problems] == ["1"] * 6 + ["2", "4"]
    assert sum(problem.captions for problem in found.problems) == 9


def test_photos_and_problems_of_several_files_come_in_their_order(tmp_path):
    def read(path):
        found = Collector(tmp_path)
        found.add(str(path), "same.jpg", [path.name, ""])
        found.add(str(path), f"{path.name}.jpg", ["own"])
        return found.photos(), found.problems

    photos, problems = read_several(read, ["one", "two"])
    assert [(p.name, p.captions) for p in photos] == [
        ("same.jpg", ("one", "two")), ("one.jpg", ("own",)), ("two.jpg", ("own",)),
    ]  # fmt: skip
    assert [problem.where for problem in problems] == ["one", "two"]
