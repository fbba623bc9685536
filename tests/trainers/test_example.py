"""Tests of examples, subsets and the report of problems."""

from __future__ import annotations

from pathlib import Path

import pytest

from effcap.trainers import Example, Problem, TooManyProblems, subset
from effcap.trainers.data.example import check_problems


def problems(count: int) -> list[Problem]:
    """Returns problems in numbered lines."""
    return [Problem(f"line {i}", "empty caption") for i in range(count)]


def test_ten_problems_are_shown_and_all_are_written(tmp_path):
    log = tmp_path / "run" / "left_out.txt"
    summary = check_problems("training", problems(12), 1200, 0.01, log)
    assert "training data: 12 of 1200 captions (1.00%) left out" in summary
    assert "line 9: empty" in summary and "line 10:" not in summary
    assert "and 2 more" in summary and f"complete list: {log}" in summary
    assert len(log.read_text().splitlines()) == 12


def test_a_photo_is_listed_once_and_counts_with_all_its_captions(tmp_path):
    log = tmp_path / "left_out.txt"
    two = [Problem("a.jpg", "no such file", 5), Problem("line 3", "empty caption")]
    assert "6 of 600 captions (1.00%)" in check_problems("training", two, 600, 0.01, log)
    assert log.read_text().splitlines() == ["a.jpg: no such file", "line 3: empty caption"]
    with pytest.raises(TooManyProblems, match="at most 1.00% of the training data"):
        check_problems("training", two, 599, 0.01, log)


def test_without_problems_the_file_of_an_earlier_run_is_removed(tmp_path):
    log = tmp_path / "left_out.txt"
    log.write_text("old")
    assert check_problems("training", [], 10, 0.0, log) == ""
    assert not log.exists()


def test_no_usable_caption_is_an_error_for_any_max_bad():
    with pytest.raises(TooManyProblems, match="5 of 5 captions"):
        check_problems("training", problems(5), 5, 1.0)


def test_a_problem_of_several_lines_is_written_on_one_line(tmp_path):
    log = tmp_path / "left_out.txt"
    check_problems("training", [Problem("a.jpg", "bad\nheader"), *problems(1)], 900, 0.01, log)
    assert log.read_text().splitlines() == ["a.jpg: bad header", "line 0: empty caption"]


def test_a_problem_is_printed_on_one_short_line_without_control_characters():
    text = str(Problem("a\nb\x1b[31m.jpg", "x" * 10_000))
    assert text.startswith("a b\\x1b[31m.jpg: xxx") and text.endswith("...")
    assert len(text) < 600 and text.isprintable()
    assert str(Problem("é東.jpg", "half \ud800")) == "é東.jpg: half \\ud800"


def test_problems_without_captions_are_reported():
    two = [Problem("images[3]", "no id", 0)]
    assert "0 of 10 captions" in check_problems("training", two, 10, 0.0)
    with pytest.raises(TooManyProblems, match="0 of 0 captions"):
        check_problems("training", two, 0, 0.0)


def make_examples(count: int, folder: str = "") -> list[Example]:
    """Returns examples named by number."""
    return [Example(Path(folder, f"{i}.jpg"), ("a",)) for i in range(count)]


def test_a_subset_is_part_of_any_larger_one():
    photos = make_examples(4000)
    fractions = (0.0001, 0.001, 0.01, 0.1, 0.5, 1.0)
    subsets = [subset(photos, [], fraction, seed=1)[0] for fraction in fractions]
    for smaller, larger in zip(subsets, subsets[1:], strict=False):
        assert set(smaller) <= set(larger)
    assert [len(each) for each in subsets] == [1, 4, 40, 400, 2000, 4000]
    assert subsets[-1] == photos
    assert subset(photos, [], 0.1, seed=2)[0] != subsets[3]


def test_a_subset_depends_only_on_names_and_seed():
    names = [p.name for p in subset(make_examples(500), [], 0.1)[0]]
    assert [p.name for p in subset(make_examples(500, "/elsewhere")[::-1], [], 0.1)[0]] == names[
        ::-1
    ]
    # All have the same file name.
    nested = [Example(Path(f"{i}/a.jpg"), ("a",), f"{i}/a.jpg") for i in range(500)]
    chosen = [int(p.name.split("/")[0]) for p in subset(nested, [], 0.1)[0]]
    assert chosen == sorted(chosen) and chosen != list(range(50))


def test_a_subset_has_at_least_one_photo_unless_there_are_none():
    assert len(subset(make_examples(3), [], 1e-9)[0]) == 1
    assert subset([], [], 0.5) == ([], [])


def test_a_subset_has_about_the_same_fraction_of_problems():
    problems = [Problem(f"line {i}", "empty") for i in range(4000)]
    kept = subset(make_examples(3), problems, 0.01, seed=1)[1]
    assert 20 < len(kept) < 60 and set(kept) < set(
        subset(make_examples(3), problems, 0.1, seed=1)[1]
    )
    assert subset(make_examples(3), problems, 1.0)[1] == problems


@pytest.mark.parametrize("fraction", (0, -1, 1.01, float("nan")))
def test_a_fraction_out_of_range_is_rejected(fraction):
    with pytest.raises(ValueError, match=f"fraction={fraction}"):
        subset(make_examples(3), [], fraction)


@pytest.mark.parametrize(
    ("caption", "can_flip"),
    (
        ("A dog.", True),
        ("A man holds a ball in his LEFT hand.", False),
        ("Two girls, the rightmost one waves.", False),
        ("A bright, cleft rock.", True),
    ),
)
def test_photos_whose_captions_mention_left_or_right_are_not_flipped(caption, can_flip):
    assert Example(Path("a.jpg"), ("A dog runs.", caption)).can_flip is can_flip
