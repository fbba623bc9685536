"""Tests of effcap.tools.captioning.partition."""

from __future__ import annotations

import os

import pytest

from effcap.tools.captioning.partition import partition


def make_shards(folder, sizes) -> list[str]:
    paths = [folder / f"{number}.tar" for number in range(len(sizes))]
    for path, size in zip(paths, sizes, strict=True):
        path.write_bytes(bytes(size))
    return list(map(str, paths))


@pytest.mark.parametrize("count", (1, 2, 3, 7, 20))
def test_every_shard_is_in_one_partition(tmp_path, count):
    shards = make_shards(tmp_path, [100, 5, 5, 60, 100, 0, 31, 2])
    shards[3:3] = ["https://example.com/a.tar", "pipe:cat b.tar"]
    partitions = [partition(shards, index, count) for index in range(count)]
    assert sorted(shard for own in partitions for shard in own) == sorted(shards)
    assert all(own == [shard for shard in shards if shard in own] for own in partitions)


def test_partitions_have_similar_sizes(tmp_path):
    shards = make_shards(tmp_path, [900, 100, 100, 100, 800, 100, 100, 100, 100])
    loads = [sum(map(os.path.getsize, partition(shards, index, 3))) for index in range(3)]
    assert sorted(loads) == [700, 800, 900]


def test_urls_are_divided_by_number(tmp_path):
    urls = [f"https://example.com/{i}.tar" for i in range(10)]
    local = make_shards(tmp_path, [10**4] * 2)
    assert [len(partition(urls, i, 4)) for i in range(4)] == [3, 3, 2, 2]
    assert [len(partition([*local, *urls], i, 4)) for i in range(4)] == [3, 3, 3, 3]


@pytest.mark.parametrize("index", (-1, 3))
def test_an_index_out_of_range_raises_an_error(index):
    with pytest.raises(ValueError, match=f"from 0 to 2. Received: index={index}"):
        partition([], index, 3)
