"""The index of a shard comes back as it was written, is small, and knows its photos."""

from __future__ import annotations

import os
import time
import zlib
from pathlib import Path

import numpy as np
import pytest
from helpers.tar_maker import photo, sample, write_tar

from effcap.trainers.data.shards import ShardIndex, index_path, index_shards, read_indexes
from effcap.trainers.data.shards.shard_index import IndexedSample

SAMPLES = [
    IndexedSample("a/0.jpg", 512, 10, 1, ("A dog.", "Ein Hündchen 🐶")),
    IndexedSample("ключ b", 2048, 5 * 2**32, 2, ("A cat.",)),
    IndexedSample("c", 2**40, 1, 2**32 - 1, ("A dog.", "x", "y")),
]


def test_an_index_comes_back_as_it_was_written(tmp_path):
    index = ShardIndex.of("s/0.tar", SAMPLES, 7, 8)
    index.write(tmp_path / "new" / "0.npz")
    found = ShardIndex.read(tmp_path / "new" / "0.npz")
    assert (found.shard, found.tar_bytes, found.tar_time_ns) == ("s/0.tar", 7, 8)
    assert len(found) == 3 and found.fingerprint == index.fingerprint
    assert [found.key(i) for i in range(3)] == [entry.key for entry in SAMPLES]
    assert [found.captions(i) for i in range(3)] == [tuple(entry.captions) for entry in SAMPLES]
    assert found.offsets.tolist() == [512, 2048, 2**40] and found.first.tolist() == [0, 2, 3, 6]
    assert found.sizes.tolist() == [10, 5 * 2**32, 1]
    assert {array.dtype for array in (found.offsets, found.sizes, found.first)} == {
        np.dtype(np.int64)
    }
    assert [path.name for path in (tmp_path / "new").iterdir()] == ["0.npz"]


def test_an_index_without_samples_is_one_too(tmp_path):
    ShardIndex.of("0.tar", []).write(tmp_path / "0.npz")
    assert len(ShardIndex.read(tmp_path / "0.npz")) == 0


def test_the_fingerprint_tells_offsets_sizes_captions_and_how_they_are_shared_out():
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
    assert len({ShardIndex.of("s", samples).fingerprint for samples in variants}) == len(variants)
    same = [base._replace(key="other")]
    assert ShardIndex.of("t", same).fingerprint == ShardIndex.of("s", [base]).fingerprint


@pytest.mark.parametrize("cut", (0, 10, 200, -40, -1))
def test_a_damaged_file_is_refused_by_name(tmp_path, cut):
    path = tmp_path / "0.npz"
    ShardIndex.of("s", SAMPLES).write(path)
    path.write_bytes(path.read_bytes()[:cut])
    with pytest.raises(ValueError, match=r"0\.npz; delete it and run `effcap index` again"):
        ShardIndex.read(path)


def test_no_bit_flip_gives_other_captions(tmp_path):
    path = tmp_path / "0.npz"
    index = ShardIndex.of("s", SAMPLES)
    index.write(path)
    whole, rng = path.read_bytes(), np.random.default_rng(0)
    for place in rng.integers(len(whole), size=100):
        path.write_bytes(whole[:place] + bytes([whole[place] ^ 4]) + whole[place + 1 :])
        try:
            found = ShardIndex.read(path)
        except ValueError:
            continue
        assert found.fingerprint == index.fingerprint


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
def test_arrays_that_do_not_belong_together_are_refused(tmp_path, changes):
    ShardIndex.of("s", SAMPLES).write(tmp_path / "0.npz")
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
def test_an_index_lies_beside_its_shard_or_in_the_folder(shard, folder, path):
    assert index_path(shard, folder).as_posix() == path


def test_a_remote_shard_needs_a_folder_for_its_index():
    with pytest.raises(ValueError, match=r"--index DIR"):
        index_path("https://host/00.tar")
    names = {index_path(f"pipe:cat {name}", "b") for name in ("x", "y")}
    assert len(names) == 2


def test_shards_whose_indexes_would_be_one_file_are_refused():
    with pytest.raises(ValueError, match=r"a/0\.tar and b/0\.tar"):
        read_indexes(["a/0.tar", "b/0.tar"], "c")
    with pytest.raises(ValueError, match=r"a/0\.tar twice"):
        read_indexes(["a/0.tar", "a/0.tar"])


@pytest.fixture
def shards(tmp_path):
    """Two indexed shards of one sample each."""
    made = [write_tar(tmp_path / f"{i}.tar", sample(f"{i}", seed=i)) for i in range(2)]
    index_shards(made)
    return made


def test_shards_without_an_index_are_named_with_what_to_do(shards, tmp_path):
    os.unlink(index_path(shards[1]))
    with pytest.raises(FileNotFoundError, match=r"run `effcap index SHARDS`.*none for .*1\.tar$"):
        read_indexes(shards)
    with pytest.raises(FileNotFoundError, match=r"--index other"):
        read_indexes(shards, "other")


def test_an_index_tells_a_photo_that_changed_by_its_checksum(shards):
    before = read_indexes(shards)
    assert [int(index.checksums[0]) for index in before] == [zlib.crc32(photo(i)) for i in range(2)]
    write_tar(Path(shards[0]), sample("0", seed=5))
    index_shards(shards)
    after = read_indexes(shards)
    assert [x.fingerprint == y.fingerprint for x, y in zip(before, after, strict=True)] == [
        False,
        True,
    ]


def test_indexes_of_shards_that_moved_say_where_the_shards_are_now(shards, tmp_path):
    (tmp_path / "moved").mkdir()
    for path in (tmp_path / "0.tar", tmp_path / "0.npz"):
        path.rename(tmp_path / "moved" / path.name)
    moved = str(tmp_path / "moved" / "0.tar")
    assert read_indexes([moved])[0].shard == moved


def test_ten_thousand_samples_take_a_megabyte_and_a_moment(tmp_path):
    text = "A caption of about sixty letters, as they are on the average."
    samples = [IndexedSample(f"{i:09d}", 1024 * i, 1000, i, (text,)) for i in range(10_000)]
    ShardIndex.of("s", samples).write(tmp_path / "0.npz")
    assert (tmp_path / "0.npz").stat().st_size < 1_200_000
    started = time.perf_counter()
    for _ in range(10):
        ShardIndex.read(tmp_path / "0.npz")
    assert time.perf_counter() - started < 1
