"""Tests of effcap.tools.captioning.shard_photos."""

from __future__ import annotations

import io
import tarfile
import threading

import numpy as np
import pytest

from effcap.images import load_photo
from effcap.tools.captioning.shard_photos import prefetch, read_batches, read_photos
from effcap.trainers.data.shards.tar import TarReader
from helpers.tar_maker import add_special, photo, write_tar

SIZE = (16, 24)


def photos_of(members) -> list[tuple]:
    file = io.BytesIO()
    with tarfile.open(fileobj=file, mode="w") as tar:
        for name, data in members:
            member = tarfile.TarInfo(name)
            member.size = len(data)
            tar.addfile(member, io.BytesIO(data))
    return [tuple(photo) for photo in read_photos(TarReader(io.BytesIO(file.getvalue())))]


def read(shards, batch_size=3) -> tuple[list, list]:
    items = list(read_batches(shards, SIZE, "squash", batch_size))
    return [item for item in items if hasattr(item, "keys")], [
        item for item in items if hasattr(item, "damage")
    ]


def test_every_sample_with_a_photo_is_read():
    members = [("a.txt", b"x"), ("a.JPG", b"1"), ("folder/b.c.png", b"2"), ("d.json", b"{}")]
    assert photos_of(members) == [("a", b"1", ""), ("folder/b.c", b"2", "")]


def test_one_of_several_adjacent_photos_is_read():
    members = [("a.gif", b"1"), ("a.txt", b"x"), ("a.jpg", b"2"), ("a.webp", b"3"), ("b.png", b"4")]
    assert photos_of(members) == [("a", b"2", ""), ("b", b"4", "")]


def test_repeated_names_are_errors_and_distant_suffixes_are_ignored():
    members = [("a.jpg", b"1"), ("b.jpg", b"2"), ("a.png", b"3"), ("b.jpg", b"4")]
    repeated = ("b", b"", "b.jpg occurs more than once")
    assert photos_of(members) == [("a", b"1", ""), ("b", b"2", ""), repeated]


def test_links_are_errors(tmp_path):
    path = tmp_path / "0.tar"
    write_tar(path, [("a.jpg", b"1")])
    add_special(path, tarfile.SYMTYPE, "b.jpg", "a.jpg")
    with path.open("rb") as file:
        assert [photo.error for photo in read_photos(TarReader(file))] == [
            "",
            "b.jpg is a link, not a regular file",
        ]


def test_batches_are_full_although_photos_cannot_be_read(tmp_path):
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
    assert end.tar_bytes == (tmp_path / "0.tar").stat().st_size and end.damage == end.error == ""


def test_photos_before_the_end_of_a_truncated_tar_are_read(tmp_path):
    path = tmp_path / "0.tar"
    write_tar(path, [(f"{i}.jpg", photo(i)) for i in range(4)])
    with tarfile.open(path) as tar:
        cut = tar.getmembers()[2].offset_data + 100
    path.write_bytes(path.read_bytes()[:cut])
    (batch,), (end,) = read([str(path)])
    assert batch.errors == ["", "", "the shard ends within 2.jpg"] and len(batch.images) == 2
    assert f"truncated after {cut} bytes" in end.damage and not end.error


def test_truncated_jpegs_with_an_end_marker_are_errors(tmp_path):
    whole = photo(0, side=256)
    shard = write_tar(tmp_path / "0.tar", [("0.jpg", whole[: len(whole) // 3] + b"\xff\xd9")])
    ((batch,), _) = read([shard])
    assert batch.errors == ["truncated: the file ends before the image is complete"]


def test_unreadable_shards_do_not_affect_the_others(tmp_path):
    pytest.importorskip("webdataset")
    good = write_tar(tmp_path / "0.tar", [("0.jpg", photo())])
    (tmp_path / "1.tar").write_bytes(b"")
    bad = [str(tmp_path / "1.tar"), str(tmp_path / "2.tar"), f"pipe:cat {good}; exit 3"]
    batches, ends = read([*bad, good, f"pipe:cat {good}"])
    assert [batch.keys for batch in batches][-2:] == [["0"]] * 2
    shard_errors = [end.error for end in ends]
    for error, words in zip(
        shard_errors, ("empty (0 bytes)", "No such file", "exit 3"), strict=False
    ):
        assert words in error
    assert shard_errors[3:] == ["", ""]


def test_prefetch_makes_a_limited_number_of_items():
    made, used = [], threading.Event()

    def items():
        for i in range(9):
            made.append(i)
            if i == 2:
                used.set()
            yield i

    stream = prefetch(items(), count=3)
    assert next(stream) == 0 and used.wait(10)
    assert next(stream) == 1 and len(made) <= 4
    stream.close()
    assert len(made) <= 5
    assert list(prefetch(iter(range(5)))) == [0, 1, 2, 3, 4]


def test_prefetch_raises_errors_in_the_order_of_items():
    def items():
        yield 1
        raise KeyError("two")

    stream = prefetch(items())
    assert next(stream) == 1
    with pytest.raises(KeyError, match="two"):
        next(stream)
