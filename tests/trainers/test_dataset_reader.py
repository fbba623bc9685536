"""Tests of `read_dataset` with Parquet files."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pyarrow
import pyarrow.parquet
import pytest

from effcap.images import load_photo
from effcap.trainers import TooManyProblems, read_csv, read_dataset, tidy
from helpers.data_maker import make_captioner, make_photos, write_csv
from helpers.parquet_maker import IMAGE, image_rows, write_parquet

datasets = pytest.importorskip("datasets")


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch) -> Path:
    """An empty cache of `datasets`."""
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")
    return tmp_path / "cache"


@pytest.fixture
def data(tmp_path) -> list[tuple[str, list[str]]]:
    """Photos in the folder photos, with captions."""
    return make_photos(tmp_path / "photos", 13)


@pytest.fixture
def rows(tmp_path, data) -> list[dict]:
    """The photos as rows."""
    return image_rows(tmp_path / "photos", data)


def captions(dataset) -> dict[str, tuple[str, ...]]:
    assert len({example.name for example in dataset.examples}) == len(dataset.examples)
    return {example.name: example.captions for example in dataset.examples}


def reasons(dataset) -> dict[int, str]:
    return {int(x.where.rpartition("row ")[2]): x.reason for x in dataset.problems}


def read_rows(tmp_path, rows, name="train.parquet", types=None, **options):
    path = write_parquet(tmp_path / name, rows, **(types or {}))
    return read_dataset(path, **options)


def test_batches_equal_those_of_the_same_photos_in_files(tmp_path, data, rows):
    captioner = make_captioner([text for _, texts in data for text in texts])
    files = read_csv(write_csv(tmp_path / "train.csv", data), tmp_path / "photos")
    table = read_rows(tmp_path, rows)
    assert captions(table) == captions(files)
    options = {"batch_size": 4, "seed": 3, "captions_per_photo": 2}
    expected, received = (x.batches(captioner, **options) for x in (files, table))
    assert received.fingerprint == expected.fingerprint and len(received) == 4
    for epoch in range(2):
        expected.start_epoch(epoch), received.start_epoch(epoch)
        for i in range(len(expected)):
            for one, other in zip(expected[i], received[i], strict=True):
                for x, y in zip(arrays(one), arrays(other), strict=True):
                    np.testing.assert_array_equal(x, y)


def arrays(batch) -> list[np.ndarray]:
    return list(batch.values()) if isinstance(batch, dict) else [batch]


def test_the_same_fraction_of_photos_is_selected_as_from_files(tmp_path, data, rows):
    files = read_csv(write_csv(tmp_path / "train.csv", data), tmp_path / "photos")
    table = read_rows(tmp_path, rows)
    assert captions(table.subset(0.4, 5)) == captions(files.subset(0.4, 5))


@pytest.mark.parametrize("form", ("struct", "bytes", "path"))
def test_photos_are_images_bytes_or_paths(tmp_path, rows, form):
    changed = [
        {"photo": row["image"] if form == "struct" else row["image"][form], "text": "A dog."}
        for row in rows
    ] if form != "path" else [
        {"photo": f"photos/{row['image']['path']}", "text": "A dog."} for row in rows
    ]  # fmt: skip
    dataset = read_rows(tmp_path, changed)
    assert dataset.problems == [] and len(dataset.examples) == len(rows)
    for example, row in zip(dataset.examples, rows, strict=True):
        expected = load_photo(row["image"]["bytes"], (32, 32))
        np.testing.assert_array_equal(load_photo(example.photo, (32, 32)), expected)


@pytest.mark.parametrize("text", ("large_string", "string_view", "dictionary"))
@pytest.mark.parametrize("image", ("large_binary", "binary_view"))
def test_types_of_other_programs_are_read(tmp_path, image, text):
    kinds = {
        "image": pyarrow.struct([("bytes", getattr(pyarrow, image)()), ("path", "string")]),
        "text": pyarrow.dictionary("int32", "string")
        if text == "dictionary"
        else getattr(pyarrow, text)(),
    }
    table = [
        {"image": {"bytes": b"%d" % i * 99, "path": f"{i}.jpg"}, "text": f"Dog {i}."}
        for i in range(250)
    ]
    dataset = read_rows(tmp_path, table, types=kinds)
    assert captions(dataset) == {f"{i}.jpg": (f"Dog {i}.",) for i in range(250)}
    photos = [example.stored.read() for example in dataset.examples]
    assert photos == [row["image"]["bytes"] for row in table]


def test_photos_written_by_datasets_are_read(tmp_path, data):
    features = {"image": datasets.Image(), "text": datasets.Value("string")}
    content = {
        "image": [str(tmp_path / "photos" / name) for name, _ in data],
        "text": [texts[0] for _, texts in data],
    }
    table = datasets.Dataset.from_dict(content, features=datasets.Features(features))
    table.to_parquet(tmp_path / "train.parquet")
    dataset = read_dataset(tmp_path / "train.parquet")
    assert [x.captions for x in dataset.examples] == [(texts[0],) for _, texts in data]
    assert dataset.problems == []


def test_paths_are_relative_to_the_images_folder(tmp_path, data):
    rows = [{"image": name, "caption": texts[0]} for name, texts in data]
    dataset = read_rows(tmp_path, rows, "tables/train.parquet", images=tmp_path / "photos")
    assert [x.path for x in dataset.examples] == [tmp_path / "photos" / name for name, _ in data]
    assert len(reasons(read_dataset(tmp_path / "tables" / "train.parquet"))) == len(data)


@pytest.mark.parametrize("columns", (["text", "caption"], ["captions"], ["sentences"], None))
def test_captions_are_in_columns_of_usual_names(tmp_path, rows, columns):
    photo = rows[0]["image"]
    if columns is None:
        row = {"image": photo, **{f"caption_{i}": f"Dog {i}." for i in (10, 2, 0)}}
        expected = ("Dog 0.", "Dog 2.", "Dog 10.")
    else:
        row = {"image": photo, "label": 3, **{name: ["A dog.", name] for name in columns}}
        expected = ("A dog.", columns[0])
    dataset = read_rows(tmp_path, [row])
    assert captions(dataset) == {"0.jpg": expected}


def test_columns_may_have_any_names(tmp_path, rows):
    row = {"thumb": rows[0]["image"], "image": rows[1]["image"], "alt": "a dog", "text": "no"}
    path = write_parquet(tmp_path / "a.parquet", [{**row, "start": "a photo of", "other": "b"}])
    dataset = read_dataset(
        path,
        image_column="image",
        caption_column=["alt", "other"],
        prefix_column="start",
        edit=tidy,
    )
    (example,) = dataset.examples
    assert (example.name, example.prefix) == ("1.jpg", "a photo of")
    assert example.captions == ("A dog.", "B.")


def test_rows_of_one_photo_are_one_example(tmp_path, rows):
    one, other = rows[0]["image"], rows[1]["image"]
    same_size = {"bytes": one["bytes"][:-1] + b"\0", "path": one["path"]}
    nameless = {"bytes": one["bytes"], "path": None}
    photos = [one, other, one, same_size, nameless, nameless]
    dataset = read_rows(
        tmp_path,
        [{"image": photo, "text": f"Dog {i}.", "prefix": ""} for i, photo in enumerate(photos)],
        types={"image": IMAGE},
    )
    expected = [("Dog 0.", "Dog 2."), ("Dog 1.",), ("Dog 3.",), ("Dog 4.", "Dog 5.")]
    assert [x.captions for x in dataset.examples] == expected
    label = f"{tmp_path / 'train.parquet'}, row"
    assert [x.name for x in dataset.examples] == [f"{label} 0", "1.jpg", f"{label} 3", f"{label} 4"]


def test_rows_that_cannot_be_used_are_problems(tmp_path, rows, cache):
    photo = rows[0]["image"]
    cases = [
        ({"bytes": None, "path": None}, "neither bytes nor a path"),
        (None, "neither bytes nor a path"),
        ({"bytes": None, "path": "/home/me/.cache/1.jpg"}, "only the name of one, /home/me/"),
        ({"bytes": None, "path": "https://a.org/1.jpg"}, "a URL, which is not downloaded"),
    ]
    table = [{"image": image, "captions": ["A dog.", "A cat."]} for image, _ in cases]
    texts = (None, [], [" "], [None], ["A dog.", "\0"])
    table += [{"image": photo, "captions": value} for value in texts]
    table += [{"image": {"bytes": b"", "path": "b.jpg"}, "captions": ["A dog."]}]
    table += [{"image": {"bytes": photo["bytes"][:-40], "path": "c.jpg"}, "captions": ["A dog."]}]
    dataset = read_rows(tmp_path, table + rows, types={"image": IMAGE})
    found = reasons(dataset)
    for number, (_, reason) in enumerate(cases):
        assert reason in found[number]
    assert [found[number].rpartition("Received: ")[2] for number in range(4, 9)] == [
        "None", "none", "empty text", "None", "text with a null character",
    ]  # fmt: skip
    assert dataset.num_captions == 8 + 6 + 2 + sum(len(row["captions"]) for row in rows)

    captioner = make_captioner()
    with pytest.raises(TooManyProblems):
        dataset.batches(captioner)
    folder = tmp_path / "run"
    batches = dataset.batches(captioner, max_bad=0.9, folder=folder)
    lines = (folder / "left_out_training.txt").read_text().splitlines()
    assert f"{tmp_path / 'train.parquet'}, row 9: it is empty (0 bytes)" in lines
    assert any(line.startswith(f"{tmp_path / 'train.parquet'}, row 10: ") for line in lines)
    assert batches.num_images == len(rows)


def test_checked_photos_are_not_decoded_again(tmp_path, rows, monkeypatch):
    captioner = make_captioner()
    options = {"folder": tmp_path / "run", "batch_size": 4}
    path = write_parquet(tmp_path / "train.parquet", rows)
    first = read_dataset(path).batches(captioner, **options)
    with monkeypatch.context() as patch:
        patch.setattr("effcap.trainers.data.photos.load_photo", lambda *_: pytest.fail("decoded"))
        again = read_dataset(path).batches(captioner, **options)
    assert again.fingerprint == first.fingerprint
    rows[3]["image"]["bytes"] = rows[4]["image"]["bytes"] + b"\0"
    other = read_rows(tmp_path, rows).batches(captioner, **options)
    assert other.fingerprint != first.fingerprint


def test_photos_are_shown_with_samples_and_in_reports(tmp_path, rows):
    batches = read_rows(tmp_path, rows).batches(make_captioner(), batch_size=4)
    preview = batches.previews(2)[1]
    assert load_photo(preview.photo, (32, 32)).tolist() == preview.inputs["images"].tolist()
    assert preview.name == "1.jpg"
    source = batches.source(0, 0)
    assert load_photo(source.photo(), (32, 32)).shape == (32, 32, 3)


def test_folders_have_the_splits_of_the_hub(tmp_path, rows):
    names = {"train-00000-of-00002": rows[:5], "train-00001-of-00002": rows[5:8]}
    for name, part in {**names, "validation-00000-of-00001": rows[8:]}.items():
        write_parquet(tmp_path / "data" / f"{name}.parquet", part)

    def read(split):
        return [example.name for example in read_dataset(tmp_path / "data", split).examples]

    assert read("train") == [f"{i}.jpg" for i in range(8)]
    assert read("validation") == [f"{i}.jpg" for i in range(8, 13)]
    assert read("train[6:]+validation[:1]") == ["6.jpg", "7.jpg", "8.jpg"]
    pattern = str(tmp_path / "data" / "train-*.parquet")
    paths = [pattern, tmp_path / "data" / "validation-00000-of-00001.parquet"]
    dataset = read_dataset(paths)
    assert [example.name for example in dataset.examples] == [f"{i}.jpg" for i in range(13)]


@pytest.mark.parametrize(
    ("source", "split", "message"),
    (
        ("none", None, "There is no data set none. Expected hf://USER/NAME or"),
        ("data", None, "Give a split: data has the splits train, validation"),
        ("data", "test", "no split 'test': data has the splits train, validation"),
        ("data", "train[", "Expected a split such as train, train.:90%. or"),
        ("data", "train[:200%]", "Cannot read data, split train.:200%."),
        ("data", "train[5:5]", "Cannot read data, split train.5:5.: .* no data"),
        ("data", "en/train", "Cannot read data: .*'en' not found. Available: .'default'"),
        ("data/train.parquet", "test", "has only the split train"),
        ("data/train.parquet", "en/train", "Only folders and data sets of the hub have config"),
        ("photos", None, "Expected Parquet files in photos. Received: other files"),
        ("empty", None, "There are no Parquet files in empty"),
        ("photos/0.jpg", None, "Expected hf://.* Received: photos/0.jpg"),
        ("bad.parquet", None, "Received: bad.parquet, which is damaged or of another format"),
        ("cut.parquet", None, "Received: cut.parquet, which is damaged or of another format"),
        ("rowless.parquet", None, "There are no rows in rowless.parquet, split train"),
        ("inner.parquet", None, "Cannot read inner.parquet, split train"),
        ("[bm]*.parquet", None, "Received: bad.parquet"),
        ("m*.parquet", None, "Expected the columns image, captions of .* Received: image, text"),
        ("https://a.org/a.parquet", None, "Expected hf://.* Received: https://a.org/a.parquet"),
        ("hf://me", None, "Expected hf://.* Received: hf://me"),
    ),
)
def test_mistaken_data_are_one_line(tmp_path, rows, monkeypatch, source, split, message):
    monkeypatch.chdir(tmp_path)
    data = write_parquet(tmp_path / "data" / "train.parquet", rows).read_bytes()
    for name in ("data/validation.parquet", "m1.parquet"):
        write_parquet(tmp_path / name, rows[:2])
    write_parquet(tmp_path / "m2.parquet", [{"image": rows[0]["image"], "text": "A dog."}])
    Path("empty").mkdir()
    pyarrow.parquet.write_table(
        pyarrow.table({"image": [b"x"], "text": ["x"]})[:0], "rowless.parquet"
    )
    Path("bad.parquet").write_bytes(b"image,caption\n")
    Path("cut.parquet").write_bytes(data[: len(data) // 2])
    Path("inner.parquet").write_bytes(data[:300] + bytes(2000) + data[2300:])
    with pytest.raises((ValueError, OSError), match=message) as error:
        read_dataset(source, split)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("row", "columns", "message"),
    (
        (
            {"image": b"x", "label": 1},
            {},
            "captions.*text, caption, captions.*image .binary., label",
        ),
        ({"id": 1, "text": "x"}, {}, "column of photos.*image or img or.*id .int64., text"),
        ({"a": b"x", "b": b"x", "text": "x"}, {}, "column of photos"),
        ({"image": b"x", "text": "x"}, {"image_column": "img"}, "Expected a column 'img' in"),
        ({"image": b"x", "text": "x"}, {"caption_column": "alt"}, "Expected a column 'alt' in"),
        ({"image": b"x", "text": "x"}, {"caption_column": "image"}, "'image' twice"),
        ({"image": [b"x"], "text": "x"}, {"image_column": "image"}, "Received: list<"),
        ({"image": b"x", "text": 3}, {}, "Expected texts, or lists of texts.*Received: int64"),
        ({"image": b"x", "text": "x", "prefix": 3}, {}, "Expected texts in the column 'prefix'"),
    ),
)
def test_missing_and_mistaken_columns_are_named(tmp_path, row, columns, message):
    with pytest.raises(ValueError, match=message):
        read_rows(tmp_path, [row], **columns)


def test_the_missing_package_is_named(tmp_path, rows, monkeypatch):
    monkeypatch.setitem(sys.modules, "datasets", None)
    with pytest.raises(ImportError, match=r"pip install 'effcap\[hub\]'"):
        read_rows(tmp_path, rows)


def test_changed_files_are_converted_again(tmp_path, rows):
    for text in ("A dog.", "A cat."):
        dataset = read_rows(tmp_path, [{"image": rows[0]["image"], "text": text}])
        assert captions(dataset) == {"0.jpg": (text,)}


def test_names_of_files_are_no_patterns(tmp_path, rows):
    name = "a [1]* {2,3} é.parquet"
    dataset = read_rows(tmp_path, rows[:2], name)
    write_parquet(tmp_path / "a 1 2 é.parquet", rows[2:])
    assert len(read_dataset(tmp_path / name).examples) == len(dataset.examples) == 2


@pytest.mark.slow
@pytest.mark.parametrize("group_rows", (100, 1_000_000))
def test_memory_does_not_grow_with_the_photos(tmp_path, group_rows):
    """Reads 100,000 photos of 5 KB, with bounded memory that is not mapped files."""
    path = tmp_path / "train.parquet"
    code = """
import sys, threading
from pathlib import Path
import datasets
from effcap.trainers import read_dataset

def anonymous() -> int:
    status = Path("/proc/self/status").read_text()
    return int(status.partition("RssAnon:")[2].split()[0]) // 1024

datasets.config.HF_DATASETS_CACHE = sys.argv[2]
peak, before, done = 0, anonymous(), threading.Event()
def watch():
    global peak
    while not done.wait(0.01):
        peak = max(peak, anonymous() - before)
thread = threading.Thread(target=watch)
thread.start()
dataset = read_dataset(sys.argv[1])
peak_of_reading, peak = peak, 0
sizes = {len(example.stored.read()) for example in dataset.examples}
done.set()
thread.join()
print(len(dataset.examples), *sizes, peak_of_reading, peak)
"""
    if not Path("/proc/self/status").exists():
        pytest.skip("reads /proc")
    photo = np.random.default_rng(0).bytes(5_000)  # not an image, which does not matter here
    kinds = pyarrow.schema([("image", IMAGE), ("text", pyarrow.string())])
    table = pyarrow.Table.from_pylist(
        [
            {"image": {"bytes": i.to_bytes(4, "big") + photo, "path": f"{i}.jpg"}, "text": "x"}
            for i in range(100_000)
        ],
        kinds,
    )
    pyarrow.parquet.write_table(table, path, row_group_size=group_rows)
    command = [sys.executable, "-c", code, str(path), str(tmp_path / "cache")]
    output = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    count, size, peak_of_reading, peak = map(int, output.split())
    print(output)
    assert (count, size) == (100_000, 5_004)
    assert peak_of_reading < 250 and peak < 250  # MB, of 500
