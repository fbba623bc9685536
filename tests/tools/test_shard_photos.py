"""Photos come out of shards in batches, in order, and what is no photo is told."""

from __future__ import annotations

import io
import tarfile
import threading

import numpy as np
import pytest
from helpers.tar_maker import add_special, photo, write_tar

from effcap.images import load_photo
from effcap.tools.captioning.shard_photos import ahead, read_batches, read_photos
from effcap.trainers.data.shards.tar import TarWalk

SIZE = (16, 24)


def photos_of(members) -> list[tuple]:
    file = io.BytesIO()
    with tarfile.open(fileobj=file, mode="w") as tar:
        for name, data in members:
            member = tarfile.TarInfo(name)
            member.size = len(data)
            tar.addfile(member, io.BytesIO(data))
    return [tuple(found) for found in read_photos(TarWalk(io.BytesIO(file.getvalue())))]


def read(shards, batch_size=3) -> tuple[list, list]:
    items = list(read_batches(shards, SIZE, "squash", batch_size))
    return [item for item in items if hasattr(item, "keys")], [
        item for item in items if hasattr(item, "note")
    ]


def test_every_sample_with_a_photo_is_given_whatever_else_it_has():
    members = [("a.txt", b"x"), ("a.JPG", b"1"), ("folder/b.c.png", b"2"), ("d.json", b"{}")]
    assert photos_of(members) == [("a", b"1", ""), ("folder/b.c", b"2", "")]


def test_of_several_photos_side_by_side_one_counts():
    members = [("a.gif", b"1"), ("a.txt", b"x"), ("a.jpg", b"2"), ("a.webp", b"3"), ("b.png", b"4")]
    assert photos_of(members) == [("a", b"2", ""), ("b", b"4", "")]


def test_a_name_that_comes_again_is_told_and_another_suffix_far_away_is_not_a_photo_more():
    members = [("a.jpg", b"1"), ("b.jpg", b"2"), ("a.png", b"3"), ("b.jpg", b"4")]
    again = ("b", b"", "b.jpg is there more than once")
    assert photos_of(members) == [("a", b"1", ""), ("b", b"2", ""), again]


def test_links_are_told(tmp_path):
    path = tmp_path / "0.tar"
    write_tar(path, [("a.jpg", b"1")])
    add_special(path, tarfile.SYMTYPE, "b.jpg", "a.jpg")
    with path.open("rb") as file:
        assert [found.error for found in read_photos(TarWalk(file))] == [
            "",
            "b.jpg is a link, no file of its own",
        ]


def test_batches_are_full_across_what_cannot_be_read(tmp_path):
    files = [photo(i) for i in range(6)]
    files[1], files[4] = b"", b"A text."
    members = [(f"{i}.jpg", data) for i, data in enumerate(files)]
    shard = write_tar(tmp_path / "0.tar", members)
    batches, (end,) = read([shard])
    assert [batch.keys for batch in batches] == [["0", "1", "2", "3"], ["4", "5"]]
    assert [len(batch.images) for batch in batches] == [3, 1]
    assert "empty (0 bytes)" in batches[0].errors[1] and "not an image" in batches[1].errors[0]
    images = np.concatenate([batch.images for batch in batches])
    for image, number in zip(images, (0, 2, 3, 5), strict=True):
        assert np.array_equal(image, load_photo(files[number], SIZE))
    assert batches[0].position < batches[1].position <= end.tar_bytes
    assert end.tar_bytes == (tmp_path / "0.tar").stat().st_size and end.note == end.problem == ""


def test_a_truncated_tar_gives_the_photos_before_the_cut(tmp_path):
    path = tmp_path / "0.tar"
    write_tar(path, [(f"{i}.jpg", photo(i)) for i in range(4)])
    with tarfile.open(path) as tar:
        cut = tar.getmembers()[2].offset_data + 100
    path.write_bytes(path.read_bytes()[:cut])
    (batch,), (end,) = read([str(path)])
    assert batch.errors == ["", "", "the shard ends within 2.jpg"] and len(batch.images) == 2
    assert f"cut off after {cut} bytes" in end.note and not end.problem


def test_a_photo_cut_short_behind_a_new_end_mark_is_told(tmp_path):
    whole = photo(0, side=256)
    shard = write_tar(tmp_path / "0.tar", [("0.jpg", whole[: len(whole) // 3] + b"\xff\xd9")])
    ((batch,), _) = read([shard])
    assert batch.errors == ["truncated: its data end before the picture does"]


def test_shards_that_cannot_be_read_do_not_keep_others_from_it(tmp_path):
    pytest.importorskip("webdataset")
    good = write_tar(tmp_path / "0.tar", [("0.jpg", photo())])
    (tmp_path / "1.tar").write_bytes(b"")
    bad = [str(tmp_path / "1.tar"), str(tmp_path / "2.tar"), f"pipe:cat {good}; exit 3"]
    batches, ends = read([*bad, good, f"pipe:cat {good}"])
    assert [batch.keys for batch in batches][-2:] == [["0"]] * 2
    problems = [end.problem for end in ends]
    for problem, words in zip(
        problems, ("empty (0 bytes)", "No such file", "exit 3"), strict=False
    ):
        assert words in problem
    assert problems[3:] == ["", ""]


def test_things_are_made_ahead_and_no_further():
    made, used = [], threading.Event()

    def items():
        for i in range(9):
            made.append(i)
            if i == 2:
                used.set()
            yield i

    stream = ahead(items(), count=3)
    assert next(stream) == 0 and used.wait(10)
    assert next(stream) == 1 and len(made) <= 4
    stream.close()
    assert len(made) <= 5
    assert list(ahead(iter(range(5)))) == [0, 1, 2, 3, 4]


def test_errors_come_where_the_thing_would_have_come():
    def items():
        yield 1
        raise KeyError("two")

    stream = ahead(items())
    assert next(stream) == 1
    with pytest.raises(KeyError, match="two"):
        next(stream)
