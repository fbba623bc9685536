"""Tests of effcap.tools.shards.write_shards."""

from __future__ import annotations

import json
import os
import sys
import tarfile
from dataclasses import replace
from pathlib import Path

import pytest

from effcap.tools.shards import index_shards, write_shards
from effcap.trainers import Example, Problem, TooManyProblems
from effcap.trainers.data.photos import PhotoDataset
from effcap.trainers.data.shards import read_indexes
from effcap.utils.progress import ProgressBar
from helpers.tar_maker import photo

pytest.importorskip("webdataset")


@pytest.fixture
def dataset(tmp_path) -> PhotoDataset:
    """Seven photos of different sizes with one to three captions."""
    examples = []
    for i in range(7):
        path = tmp_path / "photos" / f"photo {i}.jpg"
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(photo(i, side=24 + 8 * i))
        examples.append(Example(path, tuple(f"Bild {i}, {j} ü" for j in range(1 + i % 3))))
    return PhotoDataset(examples, [])


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in sorted(folder.glob("*.tar"))}


def test_photos_and_all_captions_come_back_from_the_index(dataset, tmp_path):
    summary = write_shards(dataset, tmp_path / "s", max_count=3)
    assert [path.name for path in summary.shards] == ["00000.tar", "00001.tar", "00002.tar"]
    assert (summary.num_existing, summary.num_samples, summary.num_captions) == (0, 7, 13)
    assert summary.left_out == ""
    shards = [str(path) for path in summary.shards]
    assert index_shards(shards).num_samples == 7
    indexes = read_indexes(shards)
    captions = [index.captions(i) for index in indexes for i in range(len(index))]
    assert captions == [example.captions for example in dataset.examples]
    data = summary.shards[1].read_bytes()
    first = data[indexes[1].offsets[0] :][: indexes[1].sizes[0]]
    assert first == dataset.examples[3].path.read_bytes()
    assert len({index.key(i) for index in indexes for i in range(len(index))}) == 7


def test_a_sample_is_the_photo_a_json_and_the_first_caption(dataset, tmp_path):
    example = dataset.examples[2]
    write_shards(PhotoDataset([example], []), tmp_path / "s")
    with tarfile.open(tmp_path / "s" / "00000.tar") as tar:
        members = {member.name: tar.extractfile(member).read() for member in tar}
    assert members["000000000.jpg"] == example.path.read_bytes()
    assert members["000000000.txt"].decode() == "Bild 2, 0 ü"
    content = {"captions": list(example.captions), "image": "photo 2.jpg"}
    assert json.loads(members["000000000.json"]) == content


def test_the_bytes_do_not_depend_on_the_number_of_processes(dataset, tmp_path, progress_steps):
    write_shards(dataset, tmp_path / "one", max_count=3)
    progress_steps.clear()
    write_shards(dataset, tmp_path / "two", max_count=3, num_processes=2)
    assert contents(tmp_path / "one") == contents(tmp_path / "two")
    assert sum(progress_steps) == 2 * 7  # checked and written


def test_shards_are_as_large_as_the_limit_allows(dataset, tmp_path):
    write_shards(dataset, tmp_path / "s", max_size=40_960)
    sizes = [len(data) for data in contents(tmp_path / "s").values()]
    assert max(sizes) <= 40_960 and len(sizes) > 1
    write_shards(dataset, tmp_path / "t", max_size=sum(sizes))
    assert len(contents(tmp_path / "t")) == 1


def test_an_interrupted_call_is_continued(dataset, tmp_path):
    write_shards(dataset, tmp_path / "s", max_count=2)
    complete = contents(tmp_path / "s")
    (tmp_path / "s" / "00001.tar").unlink()
    (tmp_path / "s" / ".new-00001").write_bytes(b"half")
    stamp = (tmp_path / "s" / "00000.tar").stat().st_mtime_ns
    summary = write_shards(dataset, tmp_path / "s", max_count=2)
    assert summary.num_existing == 3 and contents(tmp_path / "s") == complete
    assert (tmp_path / "s" / "00000.tar").stat().st_mtime_ns == stamp
    assert not list((tmp_path / "s").glob(".new*"))


@pytest.mark.parametrize("change", ("photos", "captions", "limit", "file", "no plan"))
def test_folders_with_other_shards_raise_an_error(dataset, tmp_path, change):
    write_shards(dataset, tmp_path / "s")
    examples = list(dataset.examples)
    max_count = 2 if change == "limit" else 10_000
    if change == "photos":
        del examples[0]
    elif change == "captions":
        examples[0] = replace(examples[0], captions=("Other.",))
    elif change == "file":
        os.utime(examples[0].path)
    elif change == "no plan":
        (tmp_path / "s" / "plan.json").unlink()
    before = contents(tmp_path / "s")
    with pytest.raises(FileExistsError, match="choose a new folder"):
        write_shards(PhotoDataset(examples, []), tmp_path / "s", max_count=max_count)
    assert contents(tmp_path / "s") == before


@pytest.mark.parametrize(
    ("options", "message"),
    (
        ({"max_count": 0}, "max_count=0"),
        ({"max_size": 10_000}, "max_size of at least .*photo"),
        ({"num_processes": 0}, "num_processes=0"),
    ),
)
def test_invalid_limits_raise_an_error(dataset, tmp_path, options, message):
    with pytest.raises(ValueError, match=message):
        write_shards(dataset, tmp_path / "s", **options)
    assert not contents(tmp_path / "s")


def test_an_empty_dataset_raises_an_error(tmp_path):
    with pytest.raises(ValueError, match="no photos"):
        write_shards(PhotoDataset([], []), tmp_path / "s")


def test_unusable_photos_are_left_out_up_to_max_bad(dataset, tmp_path):
    dataset.examples[3].path.write_bytes(b"not a photo")
    dataset.problems.append(Problem("train.csv:9", "no caption"))
    with pytest.raises(TooManyProblems, match="2 of 14 captions"):
        write_shards(dataset, tmp_path / "s")
    assert not contents(tmp_path / "s")
    summary = write_shards(dataset, tmp_path / "s", max_bad=0.2)
    assert (summary.num_samples, summary.num_captions) == (6, 12)
    listed = (tmp_path / "s" / "left_out.txt").read_text()
    for text in ("photo 3.jpg", "train.csv:9"):
        assert text in summary.left_out and text in listed


def test_a_photo_that_changes_meanwhile_leaves_no_shard(dataset, tmp_path, monkeypatch):
    def change(bar: ProgressBar, status: str | None = None, steps: int = 1) -> None:
        if bar.title == "writing photos":
            dataset.examples[5].path.write_bytes(b"other")

    monkeypatch.setattr(ProgressBar, "advance", change)
    with pytest.raises(ValueError, match="photo 5.jpg changed while"):
        write_shards(dataset, tmp_path / "s", max_count=4)
    assert list(contents(tmp_path / "s")) == ["00000.tar"]


def test_photos_without_an_image_suffix_get_that_of_their_format(tmp_path):
    examples = []
    for name, kind in (("a", "JPEG"), ("b.dat", "PNG"), ("c.webp", "JPEG")):
        (tmp_path / name).write_bytes(photo(kind=kind))
        examples.append(Example(tmp_path / name, ("A dog.",)))
    summary = write_shards(PhotoDataset(examples, []), tmp_path / "s")
    with tarfile.open(summary.shards[0]) as tar:
        names = [name for name in tar.getnames() if not name.endswith((".txt", ".json"))]
    assert names == ["000000000.jpg", "000000001.png", "000000002.webp"]
    assert index_shards([str(summary.shards[0])]).num_samples == 3


def test_a_missing_package_is_named_with_its_extra(dataset, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "webdataset", None)
    with pytest.raises(ImportError, match=r"effcap\[webdataset\]"):
        write_shards(dataset, tmp_path / "s")
