"""Tests of effcap.trainers.data.shards.shard_paths."""

from __future__ import annotations

import os

import pytest

from effcap.trainers.data.shards import find_shards


@pytest.fixture
def folder(tmp_path, monkeypatch):
    names = ("2.tar", "10.tar", "1.tar", "b/3.tar", ".hidden.tar", "_stats.json", "0.parquet", "x")
    for name in names:
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_folders_give_their_tars(folder):
    shards = find_shards([folder])
    assert [os.path.relpath(shard, folder) for shard in shards] == [
        "1.tar", "2.tar", "10.tar", "b/3.tar",
    ]  # fmt: skip


def test_patterns_match_in_natural_order(folder):
    assert find_shards(["*.tar"]) == ["1.tar", "2.tar", "10.tar"]
    assert find_shards(["**/*.tar"]) == ["1.tar", "2.tar", "10.tar", "b/3.tar"]


def test_braces_are_expanded_in_names_and_urls(folder):
    pytest.importorskip("braceexpand")
    assert find_shards(["{1..2}.tar"]) == ["1.tar", "2.tar"]
    assert find_shards(["{2,b/3}.tar"]) == ["2.tar", "b/3.tar"]
    assert find_shards(["https://host/{08..10}.tar"])[-2:] == [
        "https://host/09.tar",
        "https://host/10.tar",
    ]
    with pytest.raises(ValueError, match="balanced braces"):
        find_shards(["{1..2.tar"])


def test_shards_are_unique_and_in_the_order_of_the_arguments(folder):
    assert find_shards(["10.tar", "./1.tar", "*.tar", "x"]) == ["10.tar", "./1.tar", "2.tar", "x"]
    assert find_shards("1.tar") == ["1.tar"]


@pytest.mark.parametrize("name", ("s3://b/0.tar", "pipe:curl -s host/0.tar", "http://h/0.tar"))
def test_urls_and_commands_are_unchanged(name):
    assert find_shards([name]) == [name]


def test_missing_shards_are_named(folder):
    pytest.importorskip("braceexpand")
    with pytest.raises(FileNotFoundError, match=r"No shards found for 3\.tar, 4\.tar, no/\*\.tar;"):
        find_shards(["{1..4}.tar", "no/*.tar"])
    (folder / "empty").mkdir()
    with pytest.raises(FileNotFoundError, match="empty"):
        find_shards(["empty"])
    with pytest.raises(FileNotFoundError, match="and 91 more"):
        find_shards(["{3..99}.tar", "1.tar"])
    with pytest.raises(FileNotFoundError, match="No shards given"):
        find_shards([])


def test_files_with_wildcards_in_their_names_are_found(folder):
    (folder / "[1]{a}.tar").touch()
    assert find_shards(["[1]{a}.tar"]) == ["[1]{a}.tar"]
