"""Tests of `read_folder`."""

from __future__ import annotations

import json
import time
import unicodedata
from pathlib import Path

import pytest

from effcap.trainers import read_folder, tidy

CAPTIONS = {
    "a.jpg": ("A dog runs.", "Ein Hund läuft."),
    "train/b.png": ("犬が走る。",),
    "train/x/c d.JPG": ('A "big" cat, asleep.',),
}


@pytest.fixture
def folder(tmp_path) -> Path:
    """A folder of photos in several folders, without captions and with other files."""
    folder = tmp_path / "data"
    for name in (*CAPTIONS, "notes.md", ".hidden/z.jpg", ".z.jpg"):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(b"")
    return folder


def write_lines(path: Path, *records: dict) -> None:
    path.write_text("\n".join(map(json.dumps, records)), encoding="utf-8")


def write_sidecars(folder: Path, suffix: str = ".txt") -> None:
    for name, texts in CAPTIONS.items():
        path = (folder / name).with_suffix(suffix)
        path.write_text("\n".join(texts) + "\n", encoding="utf-8")


def captions(dataset) -> dict[str, tuple[str, ...]]:
    assert len({example.name for example in dataset.examples}) == len(dataset.examples)
    return {example.name: example.captions for example in dataset.examples}


def reasons(dataset) -> dict[str, str]:
    return {Path(problem.where).name: problem.reason for problem in dataset.problems}


@pytest.mark.parametrize("key", ("text", "caption", "captions"))
def test_metadata_in_json_lines_names_photos_below_it(folder, key):
    records = [{"file_name": n, key: list(t), "label": 3} for n, t in CAPTIONS.items()]
    records[1][key] = records[1][key][0]
    write_lines(folder / "metadata.jsonl", *records)
    dataset = read_folder(folder)
    assert captions(dataset) == CAPTIONS and dataset.problems == []
    assert [example.path for example in dataset.examples] == [folder / n for n in CAPTIONS]


@pytest.mark.parametrize("column", ("text", "caption"))
def test_metadata_in_csv_names_photos_below_it(folder, column):
    rows = [f'"{n}","{t.replace(chr(34), chr(34) * 2)}"' for n, ts in CAPTIONS.items() for t in ts]
    text = "\ufeff" + "\r\n".join([f"file_name, {column}", *rows, ""])
    (folder / "metadata.csv").write_bytes(text.encode())
    dataset = read_folder(folder)
    assert captions(dataset) == CAPTIONS and dataset.problems == []


def test_text_counts_if_there_is_a_caption_column_too(folder):
    write_lines(folder / "metadata.jsonl", {"file_name": "a.jpg", "caption": "x", "text": "y"})
    (folder / "train" / "metadata.csv").write_text("caption,file_name,text\nx,b.png,y\n")
    assert captions(read_folder(folder)) == {"a.jpg": ("y",), "train/b.png": ("y",)}


def test_a_photo_has_the_captions_of_all_metadata_files_above_it(folder):
    records = [{"file_name": name, "text": "root"} for name in CAPTIONS]
    write_lines(folder / "metadata.jsonl", *records)
    write_lines(folder / "train" / "metadata.jsonl", {"file_name": "x/c d.JPG", "text": "near"})
    expected = {name: ("root",) for name in CAPTIONS} | {"train/x/c d.JPG": ("root", "near")}
    assert captions(read_folder(folder)) == expected


def test_a_split_has_the_captions_that_its_parent_folder_has_for_it(folder):
    write_lines(
        folder / "metadata.jsonl", *({"file_name": n, "text": t[0]} for n, t in CAPTIONS.items())
    )
    dataset = read_folder(folder / "train")
    assert captions(dataset) == {"b.png": ("犬が走る。",), "x/c d.JPG": ('A "big" cat, asleep.',)}
    assert dataset.problems == []


def test_accents_of_photos_and_rows_may_be_composed_differently(tmp_path):
    name = unicodedata.normalize("NFD", "café.jpg")
    (tmp_path / name).write_bytes(b"")
    write_lines(
        tmp_path / "metadata.jsonl",
        {"file_name": unicodedata.normalize("NFC", name), "text": "A café."},
    )
    dataset = read_folder(tmp_path)
    assert dataset.examples[0].path == tmp_path / name and dataset.problems == []


@pytest.mark.parametrize("suffix", (".txt", ".caption", ".TXT"))
def test_each_line_of_the_file_beside_a_photo_is_a_caption(folder, suffix):
    write_sidecars(folder, suffix)
    dataset = read_folder(folder)
    assert captions(dataset) == CAPTIONS and dataset.problems == []


def test_text_files_may_have_marks_line_ends_and_empty_lines(folder):
    write_sidecars(folder)
    (folder / "a.txt").write_bytes("\ufeff one \r\n\r\n two\u2028three \r".encode())
    assert captions(read_folder(folder))["a.jpg"] == ("one", "two\u2028three")


def test_a_caption_file_counts_if_there_is_a_text_file_too(folder):
    write_sidecars(folder)
    (folder / "a.caption").write_text("A dog.")
    assert captions(read_folder(folder))["a.jpg"] == ("A dog.",)


def test_text_files_are_ignored_beside_metadata(folder):
    write_sidecars(folder)
    write_lines(folder / "metadata.jsonl", {"file_name": "a.jpg", "text": "x"})
    assert captions(read_folder(folder)) == {"a.jpg": ("x",)}


def test_photos_without_captions_and_captions_without_photos_are_problems(folder):
    write_sidecars(folder)
    (folder / "a.txt").unlink()
    (folder / "train" / "b.txt").write_text(" \n")
    (folder / "README.txt").write_text("about")
    (folder / "latin.jpg").write_bytes(b"")
    (folder / "latin.txt").write_bytes("é".encode("latin-1"))
    dataset = read_folder(folder)
    assert list(captions(dataset)) == ["train/x/c d.JPG"]
    found = reasons(dataset)
    assert sorted(found) == ["README.txt", "a.jpg", "b.txt", "latin.txt"]
    assert found["a.jpg"] == "expected a.txt or a.caption beside it. Received: none"
    assert "README.jpg" in found["README.txt"] and "Received: empty text" in found["b.txt"]
    assert "in UTF-8" in found["latin.txt"] and dataset.num_captions == 5


def test_a_photo_with_a_bad_row_is_one_problem(folder):
    rows = ({"file_name": "a.jpg", "text": None}, {"file_name": "train/b.png", "text": "x"}, {})
    write_lines(folder / "metadata.jsonl", *rows)
    dataset = read_folder(folder)
    assert list(captions(dataset)) == ["train/b.png"]
    found = reasons(dataset)
    assert sorted(found) == ["c d.JPG", "metadata.jsonl, line 1", "metadata.jsonl, line 3"]
    assert "a caption of a.jpg. Received: None" in found["metadata.jsonl, line 1"]


@pytest.mark.parametrize(
    ("name", "text", "message"),
    (
        ("metadata.jsonl", '{"path": "a.jpg", "text": "x"}', "Received: an object with the keys p"),
        ("metadata.jsonl", "{]", "line 1: expected JSON"),
        ("metadata.csv", "image,text\na.jpg,x\n", "column 'file_name'"),
        ("metadata.csv", "file_name,label\na.jpg,x\n", "column 'text'"),
        ("metadata.csv", "", "Received columns: none"),
        ("a.txt", "\n", "a.txt: expected a caption of a.jpg. Received: empty text"),
        ("notes.md", "x", "3 photos and no usable caption"),
    ),
)
def test_a_folder_without_captions_names_the_first_row_and_the_layouts(folder, name, text, message):
    (folder / name).write_text(text)
    with pytest.raises(ValueError) as error:
        read_folder(folder)
    assert message in str(error.value)
    assert "metadata.csv with file_name and text or caption, in the folder of" in str(error.value)


def test_mistaken_folders_are_errors(folder):
    with pytest.raises(FileNotFoundError, match="Folder of photos not found"):
        read_folder(folder / "a.jpg")
    write_sidecars(folder)
    with pytest.raises(ValueError, match="twice"):
        read_folder([folder, f"{folder}/"])
    for name in ("metadata.jsonl", "metadata.csv"):
        (folder / "train" / name).write_text("")
    with pytest.raises(ValueError, match="train. Received: both"):
        read_folder(folder)


def test_captions_are_cleaned(folder):
    write_sidecars(folder)
    (folder / "a.txt").write_text("a dog ,  running")
    assert captions(read_folder(folder, edit=tidy))["a.jpg"] == ("A dog, running.",)


def test_metadata_is_read_in_linear_time(tmp_path):
    def seconds(count: int) -> float:
        rows = (f"{i}.jpg,a dog {i} runs\n" for i in range(count))
        (tmp_path / "metadata.csv").write_text("file_name,text\n" + "".join(rows))
        start = time.perf_counter()
        assert len(read_folder(tmp_path).examples) == count
        return time.perf_counter() - start

    seconds(100)
    few, many = (min(seconds(count) for _ in range(3)) for count in (1_000, 16_000))
    assert many < 40 * max(few, 0.005)


@pytest.mark.parametrize("name", ("metadata.jsonl", "metadata.csv"))
def test_captions_of_metadata_may_continue_a_prefix(folder, name):
    (folder / "metadata.csv").write_text("file_name,text,prefix\na.jpg,a dog,a photo of\n")
    if name == "metadata.jsonl":
        (folder / "metadata.csv").unlink()
        record = {"file_name": "a.jpg", "text": "a dog", "prefix": "a photo of"}
        write_lines(folder / name, record)
    (example,) = read_folder(folder).examples
    assert (example.prefix, example.captions, example.name) == ("a photo of", ("a dog",), "a.jpg")
