"""CSV files as people have them."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from helpers.data_maker import SIZE, make_captioner, make_data, write_csv

from effcap.trainers import (
    Augmentation,
    TooManyProblems,
    csv_dataset,
    read_csv,
    read_csvs,
    tidy,
)


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
    wanted = {
        4: "expected a caption of b.jpg. Received: nothing",
        5: "expected the name of an image. Received: nothing",
        6: "expected 2 fields (text with commas belongs in quotes). Received: 1",
        7: "Received: 3",
        10: "expected a caption of g.jpg",
    }
    assert [p.where for p in problems] == [f"{tmp_path / 'a.csv'}, line {n}" for n in wanted]
    for problem, reason in zip(problems, wanted.values(), strict=True):
        assert reason in problem.reason


@pytest.mark.parametrize(
    ("text", "encoding", "message"),
    (
        ("picture,caption\na,b\n", "utf-8", r"column 'image' in .* columns: picture, caption"),
        ("image;caption\n1;2\n", "utf-8", r"image;caption; it is separated by ';', save it with"),
        ("image\tcaption\n", "utf-8", r"separated by '\\t'"),
        ("image,caption,caption\n", "utf-8", r"column 'caption' once in .*image, caption, caption"),
        ("", "utf-8", "columns: none"),
        ("image,caption\na.jpg,h\xf6r\n", "latin-1", "in UTF-8.*byte 0xf6 in line 2; save it as"),
        ("image,caption\na.jpg,A\n", "utf-16", "CSV file in UTF-8.*which is in UTF-16"),
        ("image,caption\na.jpg,A\n", "utf-16-le", "column 'image' and 'caption'"),
        ('image,caption\na.jpg,A\nb.jpg,"open\n', "utf-8", "after line 2.*never closed"),
        ('image,caption\na.jpg,"A "b" c"\n', "utf-8", "after line 0.*not doubled"),
        ("image,caption\na.jpg," + "x" * 2**24 + "y\n", "utf-8", "field larger than"),
    ),
)
def test_what_is_no_csv_with_those_columns_is_refused(tmp_path, text, encoding, message):
    with pytest.raises(ValueError, match=message):
        read_csv(write(tmp_path / "a.csv", text, encoding))


def test_files_and_folders_that_are_not_there_are_named(tmp_path):
    with pytest.raises(FileNotFoundError, match="no.csv"):
        read_csv(tmp_path / "no.csv")
    with pytest.raises(FileNotFoundError, match="which is a folder"):
        read_csv(tmp_path)
    with pytest.raises(FileNotFoundError, match="folder of photos. Received: .*none"):
        read_csv(write(tmp_path / "a.csv", "image,caption\n"), tmp_path / "none")


def test_a_photo_in_two_files_is_one_photo(tmp_path):
    one = write_csv(tmp_path / "1.csv", [("a.jpg", ["A"]), ("b.jpg", ["B"])])
    two = write_csv(tmp_path / "2.csv", [("b.jpg", ["C"])])
    photos, _ = read_csvs([one, two], tmp_path)
    assert [(p.path.name, p.captions) for p in photos] == [("a.jpg", ("A",)), ("b.jpg", ("B", "C"))]


def test_the_same_file_twice_is_refused(tmp_path):
    path = write_csv(tmp_path / "1.csv", [("a.jpg", ["A"])])
    with pytest.raises(ValueError, match="1.csv twice"):
        read_csvs([path, str(path)], tmp_path)


def test_each_file_has_its_own_folder_of_photos_where_none_is_given(tmp_path):
    for name in "xy":
        (tmp_path / name).mkdir()
        write_csv(tmp_path / name / "a.csv", [("a.jpg", [name])])
    photos, _ = read_csvs([tmp_path / name / "a.csv" for name in "xy"])
    assert [(p.path, p.captions) for p in photos] == [
        (tmp_path / name / "a.jpg", (name,)) for name in "xy"
    ]


def test_a_photo_is_one_however_its_path_is_spelt(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    names = ["a.jpg", "./a.jpg", "b/../a.jpg", str(tmp_path / "a.jpg"), ".//a.jpg"]
    path = write_csv(Path("a.csv"), [(name, [f"caption {i}"]) for i, name in enumerate(names)])
    photos, _ = read_csv(path)
    assert [(p.path, p.name, len(p.captions)) for p in photos] == [(Path("a.jpg"), "a.jpg", 5)]


def test_null_characters_are_problems_or_refused_never_read(tmp_path):
    path = write(tmp_path / "a.csv", "image,caption\na\0.jpg,A\nb.jpg,B\0\nc.jpg,C\n")
    try:
        photos, problems = read_csv(path)
    except ValueError as error:  # up to Python 3.10 the csv module reads none
        assert "NUL" in str(error)
    else:
        assert [p.path.name for p in photos] == ["c.jpg"]
        assert all("null character" in problem.reason for problem in problems)
        assert len(problems) == 2


def test_blank_lines_and_spaces_around_the_header_do_no_harm(tmp_path):
    photos, problems = read_csv(write(tmp_path / "a.csv", "\n\n image , caption \n\na.jpg,A\n\n"))
    assert [p.captions for p in photos] == [("A",)] and not problems


def test_one_column_for_both_is_refused(tmp_path):
    with pytest.raises(ValueError, match="two columns. Received: 'image'"):
        read_csv(write(tmp_path / "a.csv", "image,caption\n"), caption_column="image")


def test_a_field_of_ten_megabytes_is_a_problem_not_a_crash(tmp_path):
    path = write_csv(tmp_path / "a.csv", [("a.jpg", ["x" * 10_000_000, "A"])])
    photos, problems = read_csv(path)
    assert [p.captions for p in photos] == [("A",)]
    assert "of a.jpg. Received: a text of 10000000 characters" in str(problems)


def test_a_caption_edited_to_nothing_is_empty(tmp_path):
    path = write_csv(tmp_path / "a.csv", [("a.jpg", ["x", "dog"])])
    photos, problems = read_csv(path, edit=lambda text: tidy(text.replace("x", "")))
    assert photos[0].captions == ("Dog.",)
    assert "expected a caption of a.jpg. Received: nothing" in str(problems[0])


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


@pytest.mark.parametrize("fit", ("squash", "crop"))
def test_a_notebook_varies_photos_as_it_says_and_fits_them_as_the_model_says(tmp_path, fit):
    data, captioner = make_data(tmp_path), make_captioner()
    captioner.encoder.backbone.fit = fit
    options = {"mirror": True, "crop": 0.4, "colour": 0.2}
    batches = csv_dataset(data / "train.csv", data / "photos", captioner, **options)
    assert batches.source.fit == fit
    assert batches.source.augmentation == Augmentation(**options)
    first = batches[0][0]["images"]
    batches.start_epoch(1)
    assert not np.array_equal(first, batches[0][0]["images"])
    batches.start_epoch(0)
    assert np.array_equal(first, batches[0][0]["images"])
    with pytest.raises(ValueError, match="crop=0"):
        csv_dataset(data / "train.csv", data / "photos", captioner, crop=0)


def test_a_header_alone_is_no_data(tmp_path):
    with pytest.raises(ValueError, match="photos with captions as CSV data. Received: none"):
        csv_dataset(write_csv(tmp_path / "a.csv", []), None, make_captioner())
