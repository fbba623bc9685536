"""CSV files as people have them."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from data_maker import SIZE, make_captioner, make_data, write_csv

from effcap.trainers import TooManyProblems, csv_dataset, read_csv, read_csvs, tidy


def write(path: Path, text: str, encoding: str = "utf-8") -> Path:
    path.write_bytes(text.encode(encoding))
    return path


def test_captions_of_a_photo_come_together_in_the_order_of_the_file(tmp_path):
    text = "image,caption\nb.jpg,one\na.jpg,two\nb.jpg,three\nb.jpg,one\n"
    photos, problems = read_csv(write(tmp_path / "a.csv", text))
    assert [(p.path, p.captions) for p in photos] == [
        (tmp_path / "b.jpg", ("one", "three", "one")),
        (tmp_path / "a.jpg", ("two",)),
    ]
    assert problems == []


@pytest.mark.parametrize("bom", ("", "\ufeff"))
@pytest.mark.parametrize("end", ("\n", "\r\n", "\r"))
def test_bom_line_ends_quotes_and_unicode_are_read(tmp_path, bom, end):
    lines = [
        "id,image,caption",
        '7,"my photo, é 東.jpg","A ""big"" dog,',
        'on two lines."',
        "8,b,x",
    ]
    photos, problems = read_csv(write(tmp_path / "a.csv", bom + end.join(lines) + end))
    assert photos[0].path == tmp_path / "my photo, é 東.jpg"
    assert photos[0].captions[0].split() == ["A", '"big"', "dog,", "on", "two", "lines."]
    assert len(photos) == 2 and not problems


def test_spaces_around_names_and_captions_are_dropped(tmp_path):
    photos, _ = read_csv(write(tmp_path / "a.csv", 'image, caption\na.jpg , "A dog. "\na.jpg,B\n'))
    assert [(p.path.name, p.captions) for p in photos] == [("a.jpg", ("A dog.", "B"))]


def test_absolute_paths_stay_and_others_are_below_the_folder(tmp_path):
    other = tmp_path / "photos"
    other.mkdir()
    path = write(tmp_path / "a.csv", f"image,caption\n{tmp_path}/x.jpg,A\nsub/y.jpg,B\n")
    photos, _ = read_csv(path, other)
    assert [p.path for p in photos] == [tmp_path / "x.jpg", other / "sub" / "y.jpg"]


def test_bad_lines_are_problems_with_their_number(tmp_path):
    text = 'image,caption\na.jpg,A\n\nb.jpg, \n,C\nd.jpg\ne.jpg,E,F\nf.jpg,"two\nlines"\ng.jpg,""\n'
    photos, problems = read_csv(write(tmp_path / "a.csv", text))
    assert [p.path.name for p in photos] == ["a.jpg", "f.jpg"]
    wanted = {4: "empty caption of b.jpg", 5: "no image", 6: "2 fields", 7: "2 fields", 10: "empty"}
    assert [p.where for p in problems] == [f"{tmp_path / 'a.csv'}, line {n}" for n in wanted]
    for problem, reason in zip(problems, wanted.values(), strict=True):
        assert reason in problem.reason


@pytest.mark.parametrize(
    ("text", "encoding", "message"),
    (
        ("picture,caption\na,b\n", "utf-8", r"column 'image' in .* columns: picture, caption"),
        ("a;b\n1;2\n", "utf-8", r"column 'image' and 'caption' in .*columns: a;b"),
        ("", "utf-8", "columns: none"),
        ("image,caption\na.jpg,h\xf6r\n", "latin-1", "CSV file in UTF-8"),
        ('image,caption\na.jpg,A\nb.jpg,"open\n', "utf-8", "after line 2"),
    ),
)
def test_what_is_no_csv_with_those_columns_is_refused(tmp_path, text, encoding, message):
    with pytest.raises(ValueError, match=message):
        read_csv(write(tmp_path / "a.csv", text, encoding))


def test_files_and_folders_that_are_not_there_are_named(tmp_path):
    with pytest.raises(FileNotFoundError, match="no.csv"):
        read_csv(tmp_path / "no.csv")
    with pytest.raises(FileNotFoundError, match="folder of photos. Received: .*none"):
        read_csv(write(tmp_path / "a.csv", "image,caption\n"), tmp_path / "none")


def test_a_photo_in_two_files_is_one_photo(tmp_path):
    one = write_csv(tmp_path / "1.csv", [("a.jpg", ["A"]), ("b.jpg", ["B"])])
    two = write_csv(tmp_path / "2.csv", [("b.jpg", ["C"])])
    photos, _ = read_csvs([one, two], tmp_path)
    assert [(p.path.name, p.captions) for p in photos] == [("a.jpg", ("A",)), ("b.jpg", ("B", "C"))]


def test_a_caption_edited_to_nothing_is_empty(tmp_path):
    path = write_csv(tmp_path / "a.csv", [("a.jpg", ["x", "dog"])])
    photos, problems = read_csv(path, edit=lambda text: tidy(text.replace("x", "")))
    assert photos[0].captions == ("Dog.",)
    assert "empty caption of a.jpg" in str(problems[0])


def test_reading_needs_no_tensorflow(tmp_path):
    path = write_csv(tmp_path / "a.csv", [("a.jpg", ["A"])])
    code = (
        "import sys; from effcap.trainers import read_csv, RunOptions, tidy;"
        f"read_csv({str(path)!r}); print('tensorflow' in sys.modules, 'keras' in sys.modules)"
    )
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert ran.stdout.split() == ["False", "False"]


def test_a_notebook_trains_with_compile_and_fit(tmp_path):
    data = make_data(tmp_path)
    captioner = make_captioner()
    batches = csv_dataset(data / "train.csv", data / "photos", captioner, batch_size=4)
    inputs, targets, weights = batches[0]
    assert inputs["images"].shape == (4, SIZE, SIZE, 3) and inputs["images"].dtype == "uint8"
    assert inputs["tokens"].shape == inputs["segments"].shape == targets.shape == weights.shape
    captioner.compile(jit_compile=False)
    history = captioner.fit(batches, epochs=2, verbose=0).history
    assert history["cross_entropy"][1] < history["cross_entropy"][0]


def test_a_notebook_is_told_what_is_left_out(tmp_path):
    data = make_data(tmp_path)
    (data / "photos" / "3.jpg").write_bytes(b"no photo")
    captioner = make_captioner()
    with pytest.raises(TooManyProblems, match=r"1 of 24 captions \(4.17%\)[\s\S]*3.jpg"):
        csv_dataset(data / "train.csv", data / "photos", captioner)
    with pytest.warns(UserWarning, match="3.jpg"):
        batches = csv_dataset(data / "train.csv", data / "photos", captioner, max_bad=0.1)
    assert batches.images == 11 and len(batches.problems) == 1
