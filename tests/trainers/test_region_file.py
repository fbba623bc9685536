"""Tests of files of region features."""

from __future__ import annotations

import os
import threading
from concurrent.futures import ThreadPoolExecutor

import h5py
import numpy as np
import pytest

from effcap.trainers.data.regions import region_file
from effcap.trainers.data.regions.region_file import (
    RegionFile,
    UnusableRegions,
    candidate_keys,
    feature_key,
    write_regions,
)
from helpers.region_maker import FEATURE_DIM, features_of, make_regions

FEATURES = features_of(1)


def write_features(file, form):
    """Writes FEATURES in one of the ways that HDF5 offers."""
    if form == "chunked":
        file.create_dataset("1_features", data=FEATURES, chunks=(2, 2))
    elif form == "compressed":
        file.create_dataset("1_features", data=FEATURES, compression="gzip", shuffle=True)
    elif form == "linked":
        with h5py.File(file.filename + ".other", "w") as other:
            other["filler"], other["x"] = np.zeros(999), FEATURES
        file["1_features"] = h5py.ExternalLink(file.filename + ".other", "x")
    elif form == "in a group":
        file["1/a_features"] = FEATURES
    else:
        file["1_features"] = FEATURES.astype(form)


@pytest.mark.parametrize("userblock", (0, 512))
@pytest.mark.parametrize(
    "form",
    ("<f4", ">f4", "<f2", "<f8", "chunked", "compressed", "linked", "in a group"),
)
def test_features_are_read_as_hdf5_reads_them(tmp_path, form, userblock):
    with h5py.File(tmp_path / "f.hdf5", "w", userblock_size=userblock) as file:
        write_features(file, form)
    with RegionFile(tmp_path / "f.hdf5") as file:
        name = file.find_dataset(["1", "1/a"])
        layout = file.layout(name)
        direct = form in ("<f4", ">f4", "<f2", "<f8", "in a group") and hasattr(os, "preadv")
        assert (layout.offset is not None) == direct
        tolerance = 1e-3 if form == "<f2" else 0
        np.testing.assert_allclose(file.read(name, FEATURE_DIM), FEATURES, atol=tolerance)
        stored = file.read_stored(name).astype(">f8")
        np.testing.assert_array_equal(stored, file.read(name, FEATURE_DIM))


def test_features_are_read_through_hdf5_without_direct_reads(tmp_path, monkeypatch):
    monkeypatch.setattr(region_file, "READS_DIRECTLY", False)
    with RegionFile(make_regions(tmp_path / "f.hdf5")) as file:
        assert file.layout("1_features").offset is None
        np.testing.assert_array_equal(file.read("1_features", FEATURE_DIM), features_of(1, 2))


@pytest.mark.parametrize("form", ("{}_features", "{}"))
def test_datasets_are_found_with_and_without_suffix(tmp_path, form):
    with RegionFile(make_regions(tmp_path / "f.hdf5", 3, form)) as file:
        assert file.find_dataset(["nothing", "2"]) == form.format(2)
        assert file.find_dataset(["3"]) is None
        assert sorted(file.photo_keys()) == ["0", "1", "2"]


def test_boxes_and_classes_are_not_photos(tmp_path):
    others = {"0_boxes": np.zeros((3, 4)), "0_cls_prob": np.zeros((3, 9)), "a/b_features": FEATURES}
    with RegionFile(make_regions(tmp_path / "f.hdf5", 2, **others)) as file:
        assert sorted(file.photo_keys()) == ["0", "1", "a/b"]


@pytest.mark.parametrize(
    ("photo", "image_id", "keys"),
    (
        ("COCO_val2014_000000391895.jpg", "7", ["7", "391895"]),
        ("val2014/COCO_val2014_000000391895.jpg", None, ["391895"]),
        ("000000391895.jpg", None, ["000000391895", "391895"]),
        ("a/dog.jpg", None, ["a/dog.jpg", "a/dog", "dog"]),
        ("391895", None, ["391895"]),
    ),
)
def test_candidate_keys_are_id_name_stem_and_coco_id(photo, image_id, keys):
    candidates = candidate_keys(photo, image_id)
    assert [key for key in candidates if key in keys] == keys


@pytest.mark.parametrize("photo", ("12_34.jpg", "1000268201_693b08cb0e.jpg", "IMG_0001.jpg"))
def test_numbers_in_other_names_are_not_ids(photo):
    assert feature_key(photo) == photo
    assert not any(key.isdecimal() for key in candidate_keys(photo))


@pytest.mark.parametrize("photo", (".", "..", "//", "-", "a/", "/x.jpg", "../x.jpg", "é", "x.d/y"))
def test_unusual_names_can_be_looked_up_and_written(tmp_path, photo):
    with RegionFile(make_regions(tmp_path / "f.hdf5", 2)) as file:
        assert file.find_dataset(candidate_keys(photo)) is None
    assert feature_key("x\udcff.jpg") == "x\\xff.jpg"


def test_the_written_key_is_among_the_candidates():
    for photo in ("COCO_train2014_000000000009.jpg", "000000000009.jpg", "a/dog.jpg", "dog.jpg"):
        assert feature_key(photo) in candidate_keys(photo)
    assert feature_key("dog.jpg", "12") == "12" == candidate_keys("dog.jpg", "12")[0]


def test_batches_hold_the_first_regions_padded_with_zeros(tmp_path):
    path = make_regions(tmp_path / "f.hdf5", 4)
    with RegionFile(path, max_regions=3) as file:
        batch = file.load([f"{n}_features" for n in (3, 0)], 3, FEATURE_DIM)
        assert batch.dtype == np.float32
        np.testing.assert_array_equal(batch[0], features_of(3, 4)[:3])
        np.testing.assert_array_equal(batch[1], np.pad(features_of(0, 1), ((0, 2), (0, 0))))


def test_threads_read_in_parallel(tmp_path):
    path = make_regions(tmp_path / "f.hdf5", 40)
    barrier = threading.Barrier(8)
    with RegionFile(path) as file, ThreadPoolExecutor(8) as pool:

        def load(_):
            barrier.wait()
            return file.load([f"{n}_features" for n in range(40)], 4, FEATURE_DIM)

        first, *others = pool.map(load, range(8))
        assert all(np.array_equal(first, other) for other in others)
        np.testing.assert_array_equal(first[7], features_of(7, 4))


@pytest.mark.parametrize(
    ("features", "message"),
    (
        (np.zeros(FEATURE_DIM), r"shape \(N, C\), numeric. Received: shape \(6,\)"),
        (np.zeros((0, FEATURE_DIM)), r"Received: shape \(0, 6\)"),
        (np.zeros((2, 3, FEATURE_DIM)), r"Received: shape \(2, 3, 6\)"),
        (np.float32(1), r"Received: shape \(\)"),
        ("text", r"Received: shape \(\) of object"),
        (FEATURES > 0, "Received: shape .* of bool"),
        (h5py.Empty("f4"), "Received: no data"),
        (features_of(1, 2, 5), "of width 6. Received: 5"),
        (np.where(FEATURES[1, 1] == FEATURES, np.nan, FEATURES), "Received: nan in row 1"),
        (FEATURES.astype(float) * 1e300, "Received: -?inf in row 0"),
        (np.zeros((3, FEATURE_DIM)), "Received: only zeros"),
        (h5py.SoftLink("/nowhere"), "expected a dataset x_features"),
        (h5py.ExternalLink("none.hdf5", "x"), "expected a dataset x_features"),
    ),
)
def test_unusable_features_have_a_reason(tmp_path, features, message):
    path = make_regions(tmp_path / "f.hdf5", 1, x_features=features)
    with RegionFile(path) as file, pytest.raises(UnusableRegions, match=message):
        file.read("x_features", FEATURE_DIM)


def test_groups_and_unwritten_datasets_are_unusable(tmp_path):
    with h5py.File(tmp_path / "f.hdf5", "w", userblock_size=512) as file:
        file.create_group("1_features")
        file.create_dataset("2_features", (3, FEATURE_DIM), np.float32)
    with RegionFile(tmp_path / "f.hdf5") as file:
        with pytest.raises(UnusableRegions, match="not a dataset"):
            file.layout("1_features")
        with pytest.raises(UnusableRegions, match="only zeros"):
            file.read("2_features", FEATURE_DIM)


def test_damaged_compressed_features_are_unusable(tmp_path):
    with h5py.File(tmp_path / "f.hdf5", "w") as file:
        noise = features_of(1, 300)
        file.create_dataset("1_features", data=noise, compression="gzip", chunks=noise.shape)
    data = bytearray((tmp_path / "f.hdf5").read_bytes())
    with h5py.File(tmp_path / "f.hdf5") as file:
        start = file["1_features"].id.get_chunk_info(0).byte_offset
    data[start + 50 : start + 150] = bytes(100)
    (tmp_path / "f.hdf5").write_bytes(data)
    with RegionFile(tmp_path / "f.hdf5") as file, pytest.raises(UnusableRegions, match="damaged"):
        file.read("1_features", FEATURE_DIM)


def test_a_file_truncated_after_opening_is_reported(tmp_path):
    path = make_regions(tmp_path / "f.hdf5", 4)
    with RegionFile(path) as file:
        os.truncate(path, file.layout("3_features").offset + 10)
        with pytest.raises(UnusableRegions, match="ends within 3_features"):
            file.read("3_features", FEATURE_DIM)


@pytest.mark.parametrize("content", (b"", b"not HDF5", "cut"))
def test_files_that_are_not_hdf5_are_rejected(tmp_path, content):
    path = tmp_path / "f.hdf5"
    if content == "cut":
        make_regions(path)
        os.truncate(path, path.stat().st_size // 2)
    else:
        path.write_bytes(content)
    with pytest.raises(OSError, match="Expected an HDF5 file of region features. Received: .*f.h"):
        RegionFile(path)
    with pytest.raises(FileNotFoundError, match="file of region features not found: .*none.hdf5"):
        RegionFile(tmp_path / "none.hdf5")


def test_grids_are_not_cut(tmp_path):
    write_regions(tmp_path / "f.hdf5", [("1", features_of(1, 64))], {"grid": 64})
    with pytest.raises(ValueError, match="--max-regions 64"):
        RegionFile(tmp_path / "f.hdf5")
    with RegionFile(tmp_path / "f.hdf5", max_regions=64) as file:
        assert len(file.read("1_features", FEATURE_DIM)) == 64
        assert file.attributes == {"grid": 64}
    with pytest.raises(ValueError, match="max_regions=0"):
        RegionFile(tmp_path / "f.hdf5", max_regions=0)


def test_a_file_can_be_opened_twice(tmp_path):
    path = make_regions(tmp_path / "f.hdf5")
    with h5py.File(path) as _, RegionFile(path) as first, RegionFile(path) as second:
        for file in (first, second):
            np.testing.assert_array_equal(file.read("1_features", FEATURE_DIM), features_of(1, 2))


@pytest.mark.parametrize("grid", ("8x8", [8, 8], 64.0))
def test_other_grid_attributes_are_ignored(tmp_path, grid):
    write_regions(tmp_path / "f.hdf5", [("1", FEATURES)], {"grid": grid})
    with RegionFile(tmp_path / "f.hdf5") as file:
        assert file.grid is None


def test_an_existing_file_is_replaced_only_by_a_complete_one(tmp_path):
    path = tmp_path / "f.hdf5"
    write_regions(path, [("1", FEATURES)], {"network": "tiny", "image_size": [32, 32]})

    def broken():
        yield "2", FEATURES
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        write_regions(path, broken(), {})
    with RegionFile(path) as file:
        assert file.photo_keys() == ["1"]
        assert file.attributes == {"network": "tiny", "image_size": [32, 32]}


def test_opening_a_file_reads_no_layouts(tmp_path, monkeypatch):
    path = make_regions(tmp_path / "f.hdf5", 500)
    monkeypatch.setattr(RegionFile, "_read_layout", lambda *_: pytest.fail("read a layout"))
    with RegionFile(path) as file:
        assert file.find_dataset(["499"]) == "499_features"
