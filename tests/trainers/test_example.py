"""What is left out is counted in captions, told, and written down."""

from __future__ import annotations

from pathlib import Path

import pytest

from effcap.trainers import CaptionedPhoto, Problem, TooManyProblems, subset, tidy
from effcap.trainers.data.example import check_share


def problems(count: int) -> list[Problem]:
    return [Problem(f"line {i}", "empty caption") for i in range(count)]


def test_the_first_ten_problems_are_shown_and_all_are_written(tmp_path):
    log = tmp_path / "run" / "left_out.txt"
    summary = check_share("training", problems(12), 1200, 0.01, log)
    assert "training data: 12 of 1200 captions (1.00%) left out" in summary
    assert "line 9: empty" in summary and "line 10:" not in summary
    assert "and 2 more" in summary and str(log) in summary
    assert len(log.read_text().splitlines()) == 12


def test_a_photo_counts_with_all_its_captions_and_is_listed_once(tmp_path):
    log = tmp_path / "left_out.txt"
    wrong = [Problem("a.jpg", "no such file", 5), Problem("line 3", "empty caption")]
    assert "6 of 600 captions (1.00%)" in check_share("training", wrong, 600, 0.01, log)
    assert log.read_text().splitlines() == ["a.jpg: no such file", "line 3: empty caption"]
    with pytest.raises(TooManyProblems, match="at most 1.00% of the training data"):
        check_share("training", wrong, 599, 0.01, log)


def test_no_problem_leaves_no_file_of_an_earlier_run(tmp_path):
    log = tmp_path / "left_out.txt"
    log.write_text("old")
    assert check_share("training", [], 10, 0.0, log) == ""
    assert not log.exists()


def test_nothing_left_is_too_much_whatever_is_allowed():
    with pytest.raises(TooManyProblems, match="5 of 5 captions"):
        check_share("training", problems(5), 5, 1.0)


def test_a_problem_of_several_lines_is_one_line_in_the_file(tmp_path):
    log = tmp_path / "left_out.txt"
    check_share("training", [Problem("a.jpg", "bad\nheader"), *problems(1)], 900, 0.01, log)
    assert log.read_text().splitlines() == ["a.jpg: bad header", "line 0: empty caption"]


def test_a_problem_is_printed_on_one_short_line_that_hides_nothing():
    text = str(Problem("a\nb\x1b[31m.jpg", "x" * 10_000))
    assert text.startswith("a b\\x1b[31m.jpg: xxx") and text.endswith("...")
    assert len(text) < 600 and text.isprintable()
    assert str(Problem("é東.jpg", "half \ud800")) == "é東.jpg: half \\ud800"


def test_problems_that_cost_no_caption_are_told_all_the_same():
    wrong = [Problem("images[3]", "no id", 0)]
    assert "0 of 10 captions" in check_share("training", wrong, 10, 0.0)
    with pytest.raises(TooManyProblems, match="0 of 0 captions"):
        check_share("training", wrong, 0, 0.0)


def made(count: int, folder: str = "") -> list[CaptionedPhoto]:
    return [CaptionedPhoto(Path(folder, f"{i}.jpg"), ("a",)) for i in range(count)]


def test_a_subset_is_that_share_and_part_of_any_larger_one():
    photos = made(4000)
    parts = [subset(photos, [], share, seed=1)[0] for share in (0.0001, 0.001, 0.01, 0.1, 0.5, 1.0)]
    for smaller, larger in zip(parts, parts[1:], strict=False):
        assert set(smaller) <= set(larger)
    assert [len(part) for part in parts] == [1, 4, 40, 400, 2000, 4000]
    assert parts[-1] == photos
    assert subset(photos, [], 0.1, seed=2)[0] != parts[3]


def test_which_photos_are_in_a_subset_depends_on_names_and_seed_alone():
    names = [p.name for p in subset(made(500), [], 0.1)[0]]
    assert [p.name for p in subset(made(500, "/elsewhere")[::-1], [], 0.1)[0]] == names[::-1]
    # All have one file name.
    nested = [CaptionedPhoto(Path(f"{i}/a.jpg"), ("a",), f"{i}/a.jpg") for i in range(500)]
    chosen = [int(p.name.split("/")[0]) for p in subset(nested, [], 0.1)[0]]
    assert chosen == sorted(chosen) and chosen != list(range(50))


def test_a_subset_holds_at_least_one_photo_and_none_of_none():
    assert len(subset(made(3), [], 1e-9)[0]) == 1
    assert subset([], [], 0.5) == ([], [])


def test_of_what_is_wrong_about_that_share_counts():
    problems = [Problem(f"line {i}", "empty") for i in range(4000)]
    kept = subset(made(3), problems, 0.01, seed=1)[1]
    assert 20 < len(kept) < 60 and set(kept) < set(subset(made(3), problems, 0.1, seed=1)[1])
    assert subset(made(3), problems, 1.0)[1] == problems


@pytest.mark.parametrize("share", (0, -1, 1.01, float("nan")))
def test_a_share_out_of_range_is_refused(share):
    with pytest.raises(ValueError, match=f"share={share}"):
        subset(made(3), [], share)


@pytest.mark.parametrize(
    ("caption", "mirrors"),
    (
        ("A dog.", True),
        ("A man holds a ball in his LEFT hand.", False),
        ("Two girls, the rightmost one waves.", False),
        ("A bright, cleft rock.", True),
    ),
)
def test_captions_that_speak_of_left_or_right_are_not_mirrored(caption, mirrors):
    assert CaptionedPhoto(Path("a.jpg"), ("A dog runs.", caption)).mirrors is mirrors


@pytest.mark.parametrize(
    ("raw", "wanted"),
    (
        ("a dog ,  with a ball .", "A dog, with a ball."),
        ("the man 's hat does n't fit !", "The man's hat doesn't fit!"),
        (" two\nlines ", "Two lines."),
        ("Done.", "Done."),
        ("", ""),
    ),
)
def test_tidy_captions_read_as_printed(raw, wanted):
    assert tidy(raw) == wanted
    assert tidy(wanted) == wanted
