"""Tests of `read_csv`."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from effcap.trainers import PhotoDataset, read_csv, tidy
from helpers.data_maker import write_csv


def write(path: Path, text: str, encoding: str = "utf-8") -> Path:
    """Writes a text file."""
    path.write_bytes(text.encode(encoding))
    return path


def test_captions_are_grouped_by_photo_in_file_order(tmp_path):
    text = "image,caption\nb.jpg,one\na.jpg,two\nb.jpg,three\nb.jpg,one\n"
    dataset = read_csv(write(tmp_path / "a.csv", text))
    assert isinstance(dataset, PhotoDataset)
    assert [(p.path, p.captions) for p in dataset.examples] == [
        (tmp_path / "b.jpg", ("one", "three", "one")),
        (tmp_path / "a.jpg", ("two",)),
    ]
    assert dataset.problems == [] and dataset.num_captions == 4


@pytest.mark.parametrize("bom", ("", "\ufeff"))
@pytest.mark.parametrize("end", ("\n", "\r\n", "\r"))
def test_reads_byte_order_mark_line_ends_quotes_and_unicode(tmp_path, bom, end):
    lines = [
        "id,image,caption",
        '7,"my photo, é 東.jpg","A ""big"" dog,',
        'on two lines."',
        "8,b,x",
    ]
    dataset = read_csv(write(tmp_path / "a.csv", bom + end.join(lines) + end))
    photos = dataset.examples
    assert photos[0].path == tmp_path / "my photo, é 東.jpg"
    assert photos[0].captions[0].split() == ["A", '"big"', "dog,", "on", "two", "lines."]
    assert len(photos) == 2 and not dataset.problems


def test_spaces_around_names_and_captions_are_removed(tmp_path):
    path = write(tmp_path / "a.csv", 'image, caption\na.jpg , "A dog. "\na.jpg,B\n')
    assert [(p.path.name, p.captions) for p in read_csv(path).examples] == [
        ("a.jpg", ("A dog.", "B"))
    ]


def test_relative_paths_are_joined_to_the_folder(tmp_path):
    other = tmp_path / "photos"
    other.mkdir()
    path = write(tmp_path / "a.csv", f"image,caption\n{tmp_path}/x.jpg,A\nsub/y.jpg,B\n")
    assert [p.path for p in read_csv(path, other).examples] == [
        tmp_path / "x.jpg",
        other / "sub" / "y.jpg",
    ]


def test_bad_lines_are_problems_with_line_numbers(tmp_path):
    text = 'image,caption\na.jpg,A\n\nb.jpg, \n,C\nd.jpg\ne.jpg,E,F\nf.jpg,"two\nlines"\ng.jpg,""\n'
    dataset = read_csv(write(tmp_path / "a.csv", text))
    assert [p.path.name for p in dataset.examples] == ["a.jpg", "f.jpg"]
    reasons = {
        4: "expected a caption of b.jpg. Received: empty text",
        5: "expected the name of an image. Received: empty text",
        6: "expected 2 fields (text with commas must be quoted). Received: 1",
        7: "Received: 3",
        10: "expected a caption of g.jpg",
    }
    places = [f"{tmp_path / 'a.csv'}, line {n}" for n in reasons]
    assert [problem.where for problem in dataset.problems] == places
    for problem, reason in zip(dataset.problems, reasons.values(), strict=True):
        assert reason in problem.reason


@pytest.mark.parametrize(
    ("text", "encoding", "message"),
    (
        ("picture,caption\na,b\n", "utf-8", r"column 'image' in .* columns: picture, caption"),
        ("image;caption\n1;2\n", "utf-8", r"image;caption; its separator is ';', save it with"),
        ("image\tcaption\n", "utf-8", r"separator is '\\t'"),
        ("image,caption,caption\n", "utf-8", r"one column 'caption' in .*image, caption, caption"),
        ("", "utf-8", "columns: none"),
        (
            "image,caption\na.jpg,h\xf6r\n",
            "latin-1",
            "in UTF-8.*invalid byte 0xf6 in line 2; save it as",
        ),
        ("image,caption\na.jpg,A\n", "utf-16", "CSV file in UTF-8.*which is in UTF-16"),
        ("image,caption\na.jpg,A\n", "utf-16-le", "column 'image' and 'caption'"),
        ('image,caption\na.jpg,A\nb.jpg,"open\n', "utf-8", "after line 2.*unclosed quotes"),
        ('image,caption\na.jpg,"A "b" c"\n', "utf-8", "after line 0.*must be doubled"),
        ("image,caption\na.jpg," + "x" * 2**24 + "y\n", "utf-8", "field larger than"),
    ),
)
def test_files_that_are_not_csv_with_both_columns_are_rejected(tmp_path, text, encoding, message):
    with pytest.raises(ValueError, match=message):
        read_csv(write(tmp_path / "a.csv", text, encoding))


def test_missing_files_and_folders_are_named(tmp_path):
    with pytest.raises(FileNotFoundError, match="CSV file not found: .*no.csv"):
        read_csv(tmp_path / "no.csv")
    with pytest.raises(FileNotFoundError, match="which is a folder"):
        read_csv(tmp_path)
    with pytest.raises(FileNotFoundError, match="Folder of photos not found: .*none"):
        read_csv(write(tmp_path / "a.csv", "image,caption\n"), tmp_path / "none")


def test_captions_of_a_photo_in_two_files_are_merged(tmp_path):
    one = write_csv(tmp_path / "1.csv", [("a.jpg", ["A"]), ("b.jpg", ["B"])])
    two = write_csv(tmp_path / "2.csv", [("b.jpg", ["C"])])
    photos = read_csv([one, two], tmp_path).examples
    assert [(p.path.name, p.captions) for p in photos] == [("a.jpg", ("A",)), ("b.jpg", ("B", "C"))]


def test_the_same_file_twice_is_rejected(tmp_path):
    path = write_csv(tmp_path / "1.csv", [("a.jpg", ["A"])])
    with pytest.raises(ValueError, match="1.csv twice"):
        read_csv([path, str(path)], tmp_path)


def test_photos_are_relative_to_the_folder_of_their_own_file(tmp_path):
    for name in "xy":
        (tmp_path / name).mkdir()
        write_csv(tmp_path / name / "a.csv", [("a.jpg", [name])])
    photos = read_csv([tmp_path / name / "a.csv" for name in "xy"]).examples
    assert [(p.path, p.captions) for p in photos] == [
        (tmp_path / name / "a.jpg", (name,)) for name in "xy"
    ]


def test_different_spellings_of_a_path_are_one_photo(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    names = ["a.jpg", "./a.jpg", "b/../a.jpg", str(tmp_path / "a.jpg"), ".//a.jpg"]
    path = write_csv(Path("a.csv"), [(name, [f"caption {i}"]) for i, name in enumerate(names)])
    photos = read_csv(path).examples
    assert [(p.path, p.name, len(p.captions)) for p in photos] == [(Path("a.jpg"), "a.jpg", 5)]


def test_null_characters_are_problems_or_errors(tmp_path):
    path = write(tmp_path / "a.csv", "image,caption\na\0.jpg,A\nb.jpg,B\0\nc.jpg,C\n")
    try:
        dataset = read_csv(path)
    except ValueError as error:  # the csv module of Python 3.10 rejects them
        assert "NUL" in str(error)
    else:
        assert [p.path.name for p in dataset.examples] == ["c.jpg"]
        assert all("null character" in problem.reason for problem in dataset.problems)
        assert len(dataset.problems) == 2


def test_blank_lines_and_spaces_around_the_header_are_ignored(tmp_path):
    dataset = read_csv(write(tmp_path / "a.csv", "\n\n image , caption \n\na.jpg,A\n\n"))
    assert [p.captions for p in dataset.examples] == [("A",)] and not dataset.problems


def test_one_column_for_images_and_captions_is_rejected(tmp_path):
    with pytest.raises(
        ValueError, match="different columns. Received: 'image' for images and captions"
    ):
        read_csv(write(tmp_path / "a.csv", "image,caption\n"), caption_column="image")


def test_a_field_of_ten_megabytes_is_a_problem(tmp_path):
    dataset = read_csv(write_csv(tmp_path / "a.csv", [("a.jpg", ["x" * 10_000_000, "A"])]))
    assert [p.captions for p in dataset.examples] == [("A",)]
    assert "of a.jpg. Received: a text of 10000000 characters" in str(dataset.problems)


def test_captions_empty_after_editing_are_problems(tmp_path):
    path = write_csv(tmp_path / "a.csv", [("a.jpg", ["x", "dog"])])
    dataset = read_csv(path, edit=lambda text: tidy(text.replace("x", "")))
    assert dataset.examples[0].captions == ("Dog.",)
    assert "expected a caption of a.jpg. Received: empty text" in str(dataset.problems[0])


def test_reading_imports_neither_keras_nor_tensorflow(tmp_path):
    csv_file = write_csv(tmp_path / "a.csv", [("a.jpg", ["A"])])
    json_file = write(tmp_path / "a.json", '[{"image": "a.jpg", "caption": "A"}]')
    code = (
        "import sys\n"
        "from effcap.trainers import BatchOptions, RunOptions, check_photos, read_csv, read_json\n"
        "from effcap.trainers import RegionDataset, TrainingOptions, tidy\n"
        f"dataset = read_csv({str(csv_file)!r})\n"
        f"check_photos(dataset.examples + read_json({str(json_file)!r}).examples, (32, 32))\n"
        "print('tensorflow' in sys.modules, 'keras' in sys.modules)"
    )
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert run.stdout.split() == ["False", "False"]
