"""Tests of effcap.trainers.data.shards.photo_fetcher."""

from __future__ import annotations

from dataclasses import replace

import pytest

from effcap.trainers.data.shards.order import PhotoId
from effcap.trainers.data.shards.photo_fetcher import PhotoFetcher, UnavailablePhoto
from helpers.shard_maker import make_jpeg, write_index, write_shards

COUNTS = (3, 4)


@pytest.fixture
def paths(tmp_path):
    return write_shards(tmp_path, COUNTS)


@pytest.fixture(autouse=True)
def no_pauses(monkeypatch):
    monkeypatch.setattr("effcap.trainers.data.shards.photo_fetcher.PAUSES", (0.0,))


def as_remote(path, command="cat"):
    return replace(write_index(path), shard=f"pipe:{command} {path}")


def test_photos_of_local_shards_are_read_in_any_order(paths):
    fetcher = PhotoFetcher([write_index(path) for path in paths])
    for shard, sample, number in ((1, 3, 6), (0, 0, 0), (1, 0, 3), (0, 2, 2)):
        assert fetcher.fetch(PhotoId(shard, sample)) == make_jpeg(number)
    assert fetcher.stream([PhotoId(0, 0)]) == {}


def test_changed_photos_are_detected(paths):
    indexes = [write_index(path) for path in paths]
    fetcher = PhotoFetcher(indexes)
    with paths[0].open("r+b") as file:
        file.seek(int(indexes[0].offsets[1]) + 100)
        file.write(b"other")
    assert "have changed" in str(fetcher.fetch(PhotoId(0, 1)))
    assert fetcher.fetch(PhotoId(0, 2)) == make_jpeg(2)
    paths[1].unlink()
    assert "no longer exists" in str(fetcher.fetch(PhotoId(1, 0)))


def test_remote_shards_are_streamed_and_local_ones_left_out(paths, tmp_path):
    pytest.importorskip("webdataset")
    opened = tmp_path / "opened"
    command = f"echo >> {opened} && cat"
    fetcher = PhotoFetcher([as_remote(paths[0], command), write_index(paths[1])])
    assert fetcher.remote == {0}
    photos = [PhotoId(0, 0), PhotoId(1, 1), PhotoId(0, 2)]
    assert fetcher.stream(photos[:2]) == {photos[0]: make_jpeg(0)}
    assert fetcher.stream(photos[2:]) == {photos[2]: make_jpeg(2)}
    assert opened.read_text().count("\n") == 1  # continued where it stopped
    assert fetcher.stream(photos[:1]) == {photos[0]: make_jpeg(0)}
    assert fetcher.stream(photos[:1], number=1) == {photos[0]: make_jpeg(0)}
    assert opened.read_text().count("\n") == 3
    fetcher.close(0)
    fetcher.close(7)


def test_a_failing_stream_gives_errors_for_its_photos(paths):
    pytest.importorskip("webdataset")
    fetcher = PhotoFetcher([as_remote(paths[0], "head -c 10"), as_remote(paths[1])])
    photos = [PhotoId(0, 0), PhotoId(0, 2), PhotoId(1, 0)]
    fetched = fetcher.stream(photos)
    assert all(isinstance(fetched[photo], UnavailablePhoto) for photo in photos[:2])
    assert "cannot be read" in str(fetched[photos[0]]) and fetched[photos[2]] == make_jpeg(3)
