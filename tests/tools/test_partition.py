"""Processes that know nothing of each other share shards out among them."""

from __future__ import annotations

import os

import pytest

from effcap.tools.captioning.partition import take_part


def make_shards(folder, sizes) -> list[str]:
    paths = [folder / f"{number}.tar" for number in range(len(sizes))]
    for path, size in zip(paths, sizes, strict=True):
        path.write_bytes(bytes(size))
    return list(map(str, paths))


@pytest.mark.parametrize("parts", (1, 2, 3, 7, 20))
def test_every_shard_is_in_one_part(tmp_path, parts):
    shards = make_shards(tmp_path, [100, 5, 5, 60, 100, 0, 31, 2])
    shards[3:3] = ["https://example.com/a.tar", "pipe:cat b.tar"]
    shares = [take_part(shards, part, parts) for part in range(1, parts + 1)]
    assert sorted(shard for share in shares for shard in share) == sorted(shards)
    assert all(share == [shard for shard in shards if shard in share] for share in shares)


def test_parts_have_about_as_many_bytes(tmp_path):
    shards = make_shards(tmp_path, [900, 100, 100, 100, 800, 100, 100, 100, 100])
    loads = [sum(map(os.path.getsize, take_part(shards, part, 3))) for part in (1, 2, 3)]
    assert sorted(loads) == [700, 800, 900]


def test_addresses_are_shared_out_by_number(tmp_path):
    urls = [f"https://example.com/{i}.tar" for i in range(10)]
    local = make_shards(tmp_path, [10**4] * 2)
    assert [len(take_part(urls, i, 4)) for i in (1, 2, 3, 4)] == [3, 3, 2, 2]
    assert [len(take_part([*local, *urls], i, 4)) for i in (1, 2, 3, 4)] == [3, 3, 3, 3]


@pytest.mark.parametrize("part", (0, 4))
def test_a_part_that_is_not_there_is_refused(part):
    with pytest.raises(ValueError, match=f"from 1 to 3. Received: {part}/3"):
        take_part([], part, 3)
