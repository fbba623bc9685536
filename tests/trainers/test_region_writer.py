"""Tests of the writer of region features, which may be killed at any time."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import time
from collections import namedtuple
from pathlib import Path

import numpy as np
import pytest

from effcap.trainers.data.regions import region_writer
from effcap.trainers.data.regions.region_file import RegionFile
from effcap.trainers.data.regions.region_writer import RegionWriter
from helpers.region_maker import FEATURE_DIM, features_of

ATTRIBUTES = {"network": "tiny", "image_size": [32, 32], "grid": 3}
WRITER = """
import sys, time
import numpy as np
from effcap.trainers.data.regions import region_writer
region_writer.PART_BYTES = 4000
with region_writer.RegionWriter(sys.argv[1], {"grid": 3}) as writer:
    for number in range(10**6):
        if str(number) not in writer.keys:
            writer.add(str(number), np.full((3, 40), number + 1, np.float32))
"""


def add(path, numbers, finish=True):
    """Adds the features of some photos to a file."""
    with RegionWriter(path, ATTRIBUTES) as writer:
        for number in numbers:
            writer.add(str(number), features_of(number))
        if finish:
            writer.finish()
    return writer


def read_all(path) -> dict[str, np.ndarray]:
    """Reads all features of a file by key."""
    with RegionFile(path) as file:
        return {key: file.read(file.find_dataset([key]), FEATURE_DIM) for key in file.photo_keys()}


def check(path, numbers):
    """Checks that a file holds the features of exactly these photos."""
    features = read_all(path)
    assert sorted(features) == sorted(map(str, numbers))
    for number in numbers:
        np.testing.assert_array_equal(features[str(number)], features_of(number))


def test_parts_are_merged_into_one_file(tmp_path, monkeypatch):
    monkeypatch.setattr(region_writer, "PART_BYTES", 150)
    written = []
    monkeypatch.setattr(
        region_writer,
        "write_regions",
        lambda *arguments, write=region_writer.write_regions: (
            written.append(arguments[0].name),
            write(*arguments),
        ),
    )
    add(tmp_path / "f.hdf5", range(5))
    check(tmp_path / "f.hdf5", range(5))
    assert written == ["000001.hdf5", "000002.hdf5", "f.hdf5"]
    assert [path.name for path in tmp_path.iterdir()] == ["f.hdf5"]
    with RegionFile(tmp_path / "f.hdf5") as file:
        assert file.attributes == ATTRIBUTES
        assert file.layout("0_features").offset is not None


def test_an_interrupted_file_is_continued(tmp_path):
    add(tmp_path / "f.hdf5", range(3), finish=False)
    assert not (tmp_path / "f.hdf5").exists()
    with RegionWriter(tmp_path / "f.hdf5", ATTRIBUTES) as writer:
        assert writer.keys == {"0", "1", "2"}
    add(tmp_path / "f.hdf5", range(3, 5))
    check(tmp_path / "f.hdf5", range(5))


def test_photos_are_added_to_an_existing_file(tmp_path):
    add(tmp_path / "f.hdf5", range(3))
    assert add(tmp_path / "f.hdf5", range(3, 5)).keys == set("01234")
    check(tmp_path / "f.hdf5", range(5))


def test_a_file_without_new_photos_is_not_rewritten(tmp_path):
    add(tmp_path / "f.hdf5", range(3))
    before = (tmp_path / "f.hdf5").stat().st_mtime_ns
    add(tmp_path / "f.hdf5", ())
    assert (tmp_path / "f.hdf5").stat().st_mtime_ns == before
    add(tmp_path / "none.hdf5", ())
    assert not (tmp_path / "none.hdf5").exists()


def test_a_part_is_written_at_intervals(tmp_path, monkeypatch):
    monkeypatch.setattr(region_writer, "PART_SECONDS", 0.0)
    writer = RegionWriter(tmp_path / "f.hdf5", ATTRIBUTES)
    writer.add("1", features_of(1))
    assert RegionWriter(tmp_path / "f.hdf5", ATTRIBUTES).keys == {"1"}


@pytest.mark.parametrize("finish", (False, True))
def test_features_of_another_network_are_rejected(tmp_path, finish):
    add(tmp_path / "f.hdf5", range(2), finish)
    with pytest.raises(ValueError, match="network='other'. Received: network='tiny'; choose"):
        RegionWriter(tmp_path / "f.hdf5", {**ATTRIBUTES, "network": "other"})
    with pytest.raises(ValueError, match="dtype='float16'. Received: dtype=None"):
        RegionWriter(tmp_path / "f.hdf5", {**ATTRIBUTES, "dtype": "float16"})


def test_a_full_disk_is_an_error_and_keeps_what_is_written(tmp_path, monkeypatch):
    add(tmp_path / "f.hdf5", range(2), finish=False)
    usage = namedtuple("usage", "free")
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage(100))
    with pytest.raises(OSError, match="Not enough disk space in .*; features written so"):
        add(tmp_path / "f.hdf5", range(2, 4))
    monkeypatch.undo()
    add(tmp_path / "f.hdf5", range(2, 4))
    check(tmp_path / "f.hdf5", range(4))


def test_a_process_killed_at_any_time_leaves_complete_features(tmp_path):
    path = tmp_path / "f.hdf5"
    counts = []
    for _ in range(3):
        process = subprocess.Popen(
            [sys.executable, "-c", WRITER, str(path)], cwd=Path(__file__).resolve().parents[2]
        )
        before, deadline = counts[-1] if counts else 0, time.monotonic() + 60
        while len(list(tmp_path.glob("f.hdf5.parts/0*"))) < before // 8 + 5:
            assert time.monotonic() < deadline and process.poll() is None
            time.sleep(0.005)
        os.kill(process.pid, signal.SIGKILL)
        process.wait()
        counts.append(len(RegionWriter(path, {"grid": 3}).keys))
    assert counts[0] < counts[1] < counts[2]
    with RegionWriter(path, {"grid": 3}) as writer:
        writer.finish()
    with RegionFile(path) as file:
        assert len(file.photo_keys()) == counts[2]
        for key in file.photo_keys():
            assert (file.read(f"{key}_features", 40) == int(key) + 1).all()
