"""A file of features that is written for hours loses nothing when it is broken off."""

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
from helpers.region_maker import CHANNELS, features_of

from effcap.trainers.data.regions import region_writer as region_parts
from effcap.trainers.data.regions.region_file import RegionFile
from effcap.trainers.data.regions.region_writer import RegionParts

ABOUT = {"network": "tiny", "image_size": [32, 32], "grid": 3}
WRITER = """
import sys, time
import numpy as np
from effcap.trainers.data.regions import region_writer as region_parts
region_parts.PART_BYTES = 4000
with region_parts.RegionParts(sys.argv[1], {"grid": 3}) as parts:
    for number in range(10**6):
        if str(number) not in parts.keys:
            parts.add(str(number), np.full((3, 40), number + 1, np.float32))
"""


def add(path, numbers, finish=True, **about):
    with RegionParts(path, {**ABOUT, **about}) as parts:
        for number in numbers:
            parts.add(str(number), features_of(number))
        if finish:
            parts.finish()
    return parts


def held(path) -> dict[str, np.ndarray]:
    with RegionFile(path) as file:
        return {key: file.read(file.find([key]), CHANNELS) for key in file.photos()}


def check(path, numbers):
    found = held(path)
    assert sorted(found) == sorted(map(str, numbers))
    for number in numbers:
        np.testing.assert_array_equal(found[str(number)], features_of(number))


def test_parts_become_one_file(tmp_path, monkeypatch):
    monkeypatch.setattr(region_parts, "PART_BYTES", 150)
    written = []
    monkeypatch.setattr(
        region_parts,
        "write_regions",
        lambda *given, real=region_parts.write_regions: (
            written.append(given[0].name),
            real(*given),
        ),
    )
    add(tmp_path / "f.hdf5", range(5))
    check(tmp_path / "f.hdf5", range(5))
    assert written == ["000001.hdf5", "000002.hdf5", "f.hdf5"]
    assert [path.name for path in tmp_path.iterdir()] == ["f.hdf5"]
    with RegionFile(tmp_path / "f.hdf5") as file:
        assert file.about == ABOUT
        assert file.place("0_features").offset is not None


def test_what_was_broken_off_is_gone_on_with(tmp_path):
    add(tmp_path / "f.hdf5", range(3), finish=False)
    assert not (tmp_path / "f.hdf5").exists()
    with RegionParts(tmp_path / "f.hdf5", ABOUT) as parts:
        assert parts.keys == {"0", "1", "2"}
    add(tmp_path / "f.hdf5", range(3, 5))
    check(tmp_path / "f.hdf5", range(5))


def test_photos_are_added_to_a_file_written_earlier(tmp_path):
    add(tmp_path / "f.hdf5", range(3))
    assert add(tmp_path / "f.hdf5", range(3, 5)).keys == set("01234")
    check(tmp_path / "f.hdf5", range(5))


def test_nothing_to_add_leaves_a_file_as_it_is(tmp_path):
    add(tmp_path / "f.hdf5", range(3))
    before = (tmp_path / "f.hdf5").stat().st_mtime_ns
    add(tmp_path / "f.hdf5", ())
    assert (tmp_path / "f.hdf5").stat().st_mtime_ns == before
    add(tmp_path / "none.hdf5", ())
    assert not (tmp_path / "none.hdf5").exists()


def test_a_part_is_written_now_and_then(tmp_path, monkeypatch):
    monkeypatch.setattr(region_parts, "PART_SECONDS", 0.0)
    parts = RegionParts(tmp_path / "f.hdf5", ABOUT)
    parts.add("1", features_of(1))
    assert RegionParts(tmp_path / "f.hdf5", ABOUT).keys == {"1"}


@pytest.mark.parametrize("finish", (False, True))
def test_features_of_another_network_are_not_mixed_in(tmp_path, finish):
    add(tmp_path / "f.hdf5", range(2), finish)
    with pytest.raises(ValueError, match="network='other'. Received: network='tiny'; choose"):
        RegionParts(tmp_path / "f.hdf5", {**ABOUT, "network": "other"})
    with pytest.raises(ValueError, match="dtype='float16'. Received: dtype=None"):
        RegionParts(tmp_path / "f.hdf5", {**ABOUT, "dtype": "float16"})


def test_a_full_disk_is_told_and_what_is_there_stays(tmp_path, monkeypatch):
    add(tmp_path / "f.hdf5", range(2), finish=False)
    usage = namedtuple("usage", "free")
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage(100))
    with pytest.raises(OSError, match="room for .* GB free; what was computed is kept"):
        add(tmp_path / "f.hdf5", range(2, 4))
    monkeypatch.undo()
    add(tmp_path / "f.hdf5", range(2, 4))
    check(tmp_path / "f.hdf5", range(4))


def test_a_process_killed_at_any_moment_leaves_whole_features(tmp_path):
    path = tmp_path / "f.hdf5"
    counts = []
    for _ in range(3):
        process = subprocess.Popen(
            [sys.executable, "-c", WRITER, str(path)], cwd=Path(__file__).resolve().parents[2]
        )
        before, deadline = len(counts) and counts[-1], time.monotonic() + 60
        while len(list(tmp_path.glob("f.hdf5.parts/0*"))) < before // 8 + 5:
            assert time.monotonic() < deadline and process.poll() is None
            time.sleep(0.005)
        os.kill(process.pid, signal.SIGKILL)
        process.wait()
        counts.append(len(RegionParts(path, {"grid": 3}).keys))
    assert counts[0] < counts[1] < counts[2]
    with RegionParts(path, {"grid": 3}) as parts:
        parts.finish()
    with RegionFile(path) as file:
        assert len(file.photos()) == counts[2]
        for key in file.photos():
            assert (file.read(f"{key}_features", 40) == int(key) + 1).all()
