"""Photos go into shards as they are, the same whatever happens on the way."""

from __future__ import annotations

import json
import os
import tarfile
from pathlib import Path

import pytest
from helpers.tar_maker import photo

from effcap.trainers import CaptionedPhoto
from effcap.trainers.data.shards import index_shards, read_indexes, write_shards

pytest.importorskip("webdataset")


@pytest.fixture
def photos(tmp_path):
    """Seven photos of different sizes with one to three captions."""
    made = []
    for i in range(7):
        path = tmp_path / "photos" / f"photo {i}.jpg"
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(photo(i, side=24 + 8 * i))
        made.append(CaptionedPhoto(path, tuple(f"Bild {i}, {j} ü" for j in range(1 + i % 3))))
    return made


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in sorted(folder.glob("*.tar"))}


def test_photos_and_all_captions_come_back_from_the_index(photos, tmp_path):
    summary = write_shards(photos, tmp_path / "s", max_count=3)
    assert [path.name for path in summary.shards] == ["00000.tar", "00001.tar", "00002.tar"]
    assert (summary.known, summary.samples, summary.captions) == (0, 7, 13)
    shards = [str(path) for path in summary.shards]
    assert index_shards(shards).samples == 7
    indexes = read_indexes(shards)
    captions = [index.captions(i) for index in indexes for i in range(len(index))]
    assert captions == [photo.captions for photo in photos]
    data = summary.shards[1].read_bytes()
    assert data[indexes[1].offsets[0] :][: indexes[1].sizes[0]] == photos[3].path.read_bytes()
    assert len({index.key(i) for index in indexes for i in range(len(index))}) == 7


def test_a_sample_is_the_photo_a_json_and_the_first_caption(photos, tmp_path):
    write_shards(photos[2:3], tmp_path / "s")
    with tarfile.open(tmp_path / "s" / "00000.tar") as tar:
        members = {member.name: tar.extractfile(member).read() for member in tar}
    assert members["000000000.jpg"] == photos[2].path.read_bytes()
    assert members["000000000.txt"].decode() == "Bild 2, 0 ü"
    about = {"captions": list(photos[2].captions), "image": "photo 2.jpg"}
    assert json.loads(members["000000000.json"]) == about


def test_shards_are_the_same_bytes_whatever_the_number_of_processes(photos, tmp_path):
    done = []
    write_shards(photos, tmp_path / "one", max_count=3)
    write_shards(photos, tmp_path / "two", max_count=3, processes=2, advance=done.append)
    assert contents(tmp_path / "one") == contents(tmp_path / "two") and sum(done) == 7


def test_no_shard_is_larger_than_asked_for_and_none_smaller_than_need_be(photos, tmp_path):
    write_shards(photos, tmp_path / "s", max_size=40_960)
    sizes = [len(data) for data in contents(tmp_path / "s").values()]
    assert max(sizes) <= 40_960 and len(sizes) > 1
    write_shards(photos, tmp_path / "t", max_size=sum(sizes))
    assert len(contents(tmp_path / "t")) == 1


def test_a_run_broken_off_goes_on_where_it_was(photos, tmp_path):
    write_shards(photos, tmp_path / "s", max_count=2)
    whole = contents(tmp_path / "s")
    (tmp_path / "s" / "00001.tar").unlink()
    (tmp_path / "s" / ".new-00001").write_bytes(b"half")
    stamp = (tmp_path / "s" / "00000.tar").stat().st_mtime_ns
    summary = write_shards(photos, tmp_path / "s", max_count=2)
    assert summary.known == 3 and contents(tmp_path / "s") == whole
    assert (tmp_path / "s" / "00000.tar").stat().st_mtime_ns == stamp
    assert not list((tmp_path / "s").glob(".new*"))


@pytest.mark.parametrize("change", ("photos", "captions", "limit", "file", "no plan"))
def test_a_folder_with_shards_of_something_else_is_refused(photos, tmp_path, change):
    write_shards(photos, tmp_path / "s")
    count = 2 if change == "limit" else 10_000
    if change == "photos":
        photos = photos[1:]
    elif change == "captions":
        photos[0] = CaptionedPhoto(photos[0].path, ("Other.",))
    elif change == "file":
        os.utime(photos[0].path)
    elif change == "no plan":
        (tmp_path / "s" / "plan.json").unlink()
    before = contents(tmp_path / "s")
    with pytest.raises(FileExistsError, match="Expected a new folder"):
        write_shards(photos, tmp_path / "s", max_count=count)
    assert contents(tmp_path / "s") == before


@pytest.mark.parametrize(
    ("options", "message"),
    (
        ({"max_count": 0}, "max_count=0"),
        ({"max_size": 10_000}, "max_size of at least .*photo"),
        ({"processes": 0}, "processes=0"),
    ),
)
def test_limits_that_cannot_be_kept_are_refused(photos, tmp_path, options, message):
    with pytest.raises(ValueError, match=message):
        write_shards(photos, tmp_path / "s", **options)
    assert not contents(tmp_path / "s")


def test_no_photos_are_refused(tmp_path):
    with pytest.raises(ValueError, match="none"):
        write_shards([], tmp_path / "s")


def test_a_photo_that_changes_meanwhile_leaves_no_shard(photos, tmp_path):
    def change(count: int) -> None:
        photos[5].path.write_bytes(b"other")

    with pytest.raises(ValueError, match="photo 5.jpg to stay as it is"):
        write_shards(photos, tmp_path / "s", max_count=4, advance=change)
    assert list(contents(tmp_path / "s")) == ["00000.tar"]


def test_a_photo_without_a_suffix_gets_that_of_its_format(tmp_path):
    made = []
    for name, kind in (("a", "JPEG"), ("b.dat", "PNG"), ("c.webp", "JPEG")):
        (tmp_path / name).write_bytes(photo(kind=kind))
        made.append(CaptionedPhoto(tmp_path / name, ("A dog.",)))
    summary = write_shards(made, tmp_path / "s")
    with tarfile.open(summary.shards[0]) as tar:
        names = [name for name in tar.getnames() if not name.endswith((".txt", ".json"))]
    assert names == ["000000000.jpg", "000000001.png", "000000002.webp"]
    assert index_shards([str(summary.shards[0])]).samples == 3
