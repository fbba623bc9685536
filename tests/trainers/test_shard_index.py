"""Tests of effcap.trainers.data.shards.shard_index."""

from __future__ import annotations

import os
import time
import zlib
from pathlib import Path

import numpy as np
import pytest

from effcap.trainers.data.shards import ShardIndex, index_path, read_indexes
from effcap.trainers.data.shards.shard_index import IndexedSample
from helpers.shard_maker import make_jpeg, write_shard

SAMPLES = [
    IndexedSample("a/0.jpg", 512, 10, 1, ("A dog.", "Ein Hündchen 🐶")),
    IndexedSample("ключ b", 2048, 5 * 2**32, 2, ("A cat.",)),
    IndexedSample("c", 2**40, 1, 2**32 - 1, ("A dog.", "x", "y")),
]


def test_an_index_is_read_as_it_was_written(tmp_path):
    index = ShardIndex.from_samples("s/0.tar", SAMPLES, 7, 8)
    index.write(tmp_path / "new" / "0.npz")
    copy = ShardIndex.read(tmp_path / "new" / "0.npz")
    assert (copy.shard, copy.tar_bytes, copy.tar_time_ns) == ("s/0.tar", 7, 8)
    assert len(copy) == 3 and copy.fingerprint == index.fingerprint
    assert [copy.key(i) for i in range(3)] == [entry.key for entry in SAMPLES]
    assert [copy.captions(i) for i in range(3)] == [tuple(entry.captions) for entry in SAMPLES]
    assert copy.offsets.tolist() == [512, 2048, 2**40] and copy.first.tolist() == [0, 2, 3, 6]
    assert copy.sizes.tolist() == [10, 5 * 2**32, 1]
    assert {array.dtype for array in (copy.offsets, copy.sizes, copy.first)} == {np.dtype(np.int64)}
    assert [path.name for path in (tmp_path / "new").iterdir()] == ["0.npz"]


def test_an_index_can_be_empty(tmp_path):
    ShardIndex.from_samples("0.tar", []).write(tmp_path / "0.npz")
    assert len(ShardIndex.read(tmp_path / "0.npz")) == 0


def test_the_fingerprint_depends_on_photos_and_captions():
    base = SAMPLES[0]
    variants = [
        [base],
        [base._replace(offset=1024)],
        [base._replace(size=11)],
        [base._replace(captions=("A dog.",))],
        [base._replace(captions=("A dog.Ein", " Hündchen 🐶"))],
        [base, base],
        [],
    ]
    fingerprints = {ShardIndex.from_samples("s", samples).fingerprint for samples in variants}
    assert len(fingerprints) == len(variants)
    same = [base._replace(key="other")]
    other, first = ShardIndex.from_samples("t", same), ShardIndex.from_samples("s", [base])
    assert other.fingerprint == first.fingerprint


@pytest.mark.parametrize("cut", (0, 10, 200, -40, -1))
def test_a_truncated_file_raises_an_error_with_its_name(tmp_path, cut):
    path = tmp_path / "0.npz"
    ShardIndex.from_samples("s", SAMPLES).write(path)
    path.write_bytes(path.read_bytes()[:cut])
    with pytest.raises(ValueError, match=r"0\.npz is not a valid .* run `effcap index` again"):
        ShardIndex.read(path)


def test_no_flipped_bit_changes_the_captions(tmp_path):
    path = tmp_path / "0.npz"
    index = ShardIndex.from_samples("s", SAMPLES)
    index.write(path)
    whole, rng = path.read_bytes(), np.random.default_rng(0)
    for place in rng.integers(len(whole), size=100):
        path.write_bytes(whole[:place] + bytes([whole[place] ^ 4]) + whole[place + 1 :])
        try:
            damaged = ShardIndex.read(path)
        except ValueError:
            continue
        assert damaged.fingerprint == index.fingerprint


@pytest.mark.parametrize(
    "changes",
    (
        {"format": np.int64(2)},
        {"first": np.array([0, 2, 3, 7])},
        {"first": np.array([0, 3, 2, 6])},
        {"sizes": np.array([1])},
        {"caption_ends": np.array([0, 99])},
        {"offsets": np.array([{}], object)},
    ),
)
def test_inconsistent_arrays_raise_an_error(tmp_path, changes):
    ShardIndex.from_samples("s", SAMPLES).write(tmp_path / "0.npz")
    with np.load(tmp_path / "0.npz") as file:
        arrays = {**file, **changes}
    np.savez(tmp_path / "1.npz", **arrays)
    with pytest.raises(ValueError, match="1.npz"):
        ShardIndex.read(tmp_path / "1.npz")


@pytest.mark.parametrize(
    ("shard", "folder", "path"),
    (
        ("a/00.tar", None, "a/00.npz"),
        ("a/00.tar", "b", "b/00.npz"),
        ("a/x.y.TAR", None, "a/x.y.npz"),
        ("a/part.000", None, "a/part.000.npz"),
        ("https://host/a/00.tar?x=1#y", "b", "b/00.npz"),
        ("s3://bucket/00.tar", "b", "b/00.npz"),
        ("pipe:aws s3 cp s3://bucket/a/00.tar -", "b", "b/00.npz"),
    ),
)
def test_an_index_is_beside_its_shard_or_in_the_folder(shard, folder, path):
    assert index_path(shard, folder).as_posix() == path


def test_remote_shards_require_a_folder_for_their_indexes():
    with pytest.raises(ValueError, match=r"--index"):
        index_path("https://host/00.tar")
    names = {index_path(f"pipe:cat {name}", "b") for name in ("x", "y")}
    assert len(names) == 2


def test_shards_with_the_same_index_raise_an_error():
    with pytest.raises(ValueError, match=r"a/0\.tar and b/0\.tar"):
        read_indexes(["a/0.tar", "b/0.tar"], "c")
    with pytest.raises(ValueError, match=r"a/0\.tar twice"):
        read_indexes(["a/0.tar", "a/0.tar"])


@pytest.fixture
def shards(tmp_path) -> list[str]:
    """Two indexed shards of one photo each."""
    paths = [tmp_path / f"{i}.tar" for i in range(2)]
    for i, path in enumerate(paths):
        write_shard(path, {f"{i}": make_jpeg(i)})
    return list(map(str, paths))


def test_missing_indexes_are_named_with_the_command(shards, tmp_path):
    os.unlink(index_path(shards[1]))
    with pytest.raises(FileNotFoundError, match=r"No index for \S*1\.tar; run `effcap index S"):
        read_indexes(shards)
    with pytest.raises(FileNotFoundError, match=r"--index other"):
        read_indexes(shards, "other")


def test_checksums_detect_changed_photos(shards):
    before = read_indexes(shards)
    checksums = [int(index.checksums[0]) for index in before]
    assert checksums == [zlib.crc32(make_jpeg(i)) for i in range(2)]
    write_shard(Path(shards[0]), {"0": make_jpeg(5)})
    after = read_indexes(shards)
    assert before[0].fingerprint != after[0].fingerprint
    assert before[1].fingerprint == after[1].fingerprint


def test_indexes_of_moved_shards_have_the_new_path(shards, tmp_path):
    (tmp_path / "moved").mkdir()
    for path in (tmp_path / "0.tar", tmp_path / "0.npz"):
        path.rename(tmp_path / "moved" / path.name)
    moved = str(tmp_path / "moved" / "0.tar")
    assert read_indexes([moved])[0].shard == moved


def test_ten_thousand_samples_take_a_megabyte_and_0_1_seconds(tmp_path):
    text = "A caption of about sixty letters, as they are on the average."
    samples = [IndexedSample(f"{i:09d}", 1024 * i, 1000, i, (text,)) for i in range(10_000)]
    ShardIndex.from_samples("s", samples).write(tmp_path / "0.npz")
    assert (tmp_path / "0.npz").stat().st_size < 1_200_000
    started = time.perf_counter()
    for _ in range(10):
        ShardIndex.read(tmp_path / "0.npz")
    assert time.perf_counter() - started < 1
