"""Features are read as HDF5 would read them, whatever their form; what cannot be used says why."""

from __future__ import annotations

import os
import threading
from concurrent.futures import ThreadPoolExecutor

import h5py
import numpy as np
import pytest
from helpers.region_maker import CHANNELS, features_of, make_regions

from effcap.trainers.data.regions import region_file
from effcap.trainers.data.regions.region_file import (
    RegionFile,
    UnusableRegions,
    key_to_write,
    keys_of,
    write_regions,
)

FEATURES = features_of(1)


def written(file, name):
    """FEATURES as `name` in ways in which HDF5 can hold them."""
    if name == "chunked":
        file.create_dataset("1_features", data=FEATURES, chunks=(2, 2))
    elif name == "compressed":
        file.create_dataset("1_features", data=FEATURES, compression="gzip", shuffle=True)
    elif name == "linked":
        with h5py.File(file.filename + ".other", "w") as other:
            other["filler"], other["x"] = np.zeros(999), FEATURES
        file["1_features"] = h5py.ExternalLink(file.filename + ".other", "x")
    elif name == "in a group":
        file["1/a_features"] = FEATURES
    else:
        file["1_features"] = FEATURES.astype(name)


@pytest.mark.parametrize("userblock", (0, 512))
@pytest.mark.parametrize(
    "form",
    ("<f4", ">f4", "<f2", "<f8", "chunked", "compressed", "linked", "in a group"),
)
def test_features_are_read_as_hdf5_reads_them(tmp_path, form, userblock):
    with h5py.File(tmp_path / "f.hdf5", "w", userblock_size=userblock) as file:
        written(file, form)
    with RegionFile(tmp_path / "f.hdf5") as file:
        name = file.find(["1", "1/a"])
        place = file.place(name)
        direct = form in ("<f4", ">f4", "<f2", "<f8", "in a group") and hasattr(os, "preadv")
        assert (place.offset is not None) == direct
        tolerance = 1e-3 if form == "<f2" else 0
        np.testing.assert_allclose(file.read(name, CHANNELS), FEATURES, atol=tolerance)
        np.testing.assert_array_equal(file.stored(name).astype(">f8"), file.read(name, CHANNELS))


def test_without_direct_reading_the_same_is_read(tmp_path, monkeypatch):
    monkeypatch.setattr(region_file, "READS_DIRECTLY", False)
    with RegionFile(make_regions(tmp_path / "f.hdf5")) as file:
        assert file.place("1_features").offset is None
        np.testing.assert_array_equal(file.read("1_features", CHANNELS), features_of(1, 2))


@pytest.mark.parametrize("form", ("{}_features", "{}"))
def test_datasets_are_found_with_and_without_ending(tmp_path, form):
    with RegionFile(make_regions(tmp_path / "f.hdf5", 3, form)) as file:
        assert file.find(["nothing", "2"]) == form.format(2)
        assert file.find(["3"]) is None
        assert sorted(file.photos()) == ["0", "1", "2"]


def test_boxes_and_classes_beside_features_are_no_photos(tmp_path):
    more = {"0_boxes": np.zeros((3, 4)), "0_cls_prob": np.zeros((3, 9)), "a/b_features": FEATURES}
    with RegionFile(make_regions(tmp_path / "f.hdf5", 2, **more)) as file:
        assert sorted(file.photos()) == ["0", "1", "a/b"]


@pytest.mark.parametrize(
    ("photo", "number", "keys"),
    (
        ("COCO_val2014_000000391895.jpg", "7", ["7", "391895"]),
        ("val2014/COCO_val2014_000000391895.jpg", None, ["391895"]),
        ("000000391895.jpg", None, ["000000391895", "391895"]),
        ("a/dog.jpg", None, ["a/dog.jpg", "a/dog", "dog"]),
        ("391895", None, ["391895"]),
    ),
)
def test_a_photo_is_known_by_id_name_stem_and_coco_number(photo, number, keys):
    found = keys_of(photo, number)
    assert [key for key in found if key in keys] == keys


@pytest.mark.parametrize("photo", ("12_34.jpg", "1000268201_693b08cb0e.jpg", "IMG_0001.jpg"))
def test_numbers_in_other_names_are_no_ids(photo):
    assert key_to_write(photo) == photo
    assert not any(key.isdecimal() for key in keys_of(photo))


@pytest.mark.parametrize("photo", (".", "..", "//", "-", "a/", "/x.jpg", "../x.jpg", "é", "x.d/y"))
def test_odd_names_are_looked_for_all_the_same(tmp_path, photo):
    with RegionFile(make_regions(tmp_path / "f.hdf5", 2)) as file:
        assert file.find(keys_of(photo)) is None
    assert key_to_write("x\udcff.jpg") == "x\\xff.jpg"


def test_what_is_written_is_found_by_the_name_of_the_captions():
    for photo in ("COCO_train2014_000000000009.jpg", "000000000009.jpg", "a/dog.jpg", "dog.jpg"):
        assert key_to_write(photo) in keys_of(photo)
    assert key_to_write("dog.jpg", "12") == "12" == keys_of("dog.jpg", "12")[0]


def test_batches_are_filled_up_with_zeros_and_hold_the_first_regions(tmp_path):
    path = make_regions(tmp_path / "f.hdf5", 4)
    with RegionFile(path, limit=3) as file:
        batch = file.load([f"{n}_features" for n in (3, 0)], 3, CHANNELS)
        assert batch.dtype == np.float32
        np.testing.assert_array_equal(batch[0], features_of(3, 4)[:3])
        np.testing.assert_array_equal(batch[1], np.pad(features_of(0, 1), ((0, 2), (0, 0))))


def test_threads_read_the_same_at_once(tmp_path):
    path = make_regions(tmp_path / "f.hdf5", 40)
    barrier = threading.Barrier(8)
    with RegionFile(path) as file, ThreadPoolExecutor(8) as pool:

        def load(_):
            barrier.wait()
            return file.load([f"{n}_features" for n in range(40)], 4, CHANNELS)

        first, *others = pool.map(load, range(8))
        assert all(np.array_equal(first, other) for other in others)
        np.testing.assert_array_equal(first[7], features_of(7, 4))


@pytest.mark.parametrize(
    ("features", "message"),
    (
        (np.zeros(CHANNELS), r"shape \(N, C\), numbers. Received: shape \(6,\)"),
        (np.zeros((0, CHANNELS)), r"Received: shape \(0, 6\)"),
        (np.zeros((2, 3, CHANNELS)), r"Received: shape \(2, 3, 6\)"),
        (np.float32(1), r"Received: shape \(\)"),
        ("text", r"Received: shape \(\) of object"),
        (FEATURES > 0, "Received: shape .* of bool"),
        (h5py.Empty("f4"), "Received: nothing"),
        (features_of(1, 2, 5), "of width 6. Received: 5"),
        (np.where(FEATURES[1, 1] == FEATURES, np.nan, FEATURES), "Received: nan in row 1"),
        (FEATURES.astype(float) * 1e300, "Received: -?inf in row 0"),
        (np.zeros((3, CHANNELS)), "Received: nothing but zeros"),
        (h5py.SoftLink("/nowhere"), "expected a dataset x_features"),
        (h5py.ExternalLink("none.hdf5", "x"), "expected a dataset x_features"),
    ),
)
def test_what_cannot_be_features_says_why(tmp_path, features, message):
    path = make_regions(tmp_path / "f.hdf5", 1, x_features=features)
    with RegionFile(path) as file, pytest.raises(UnusableRegions, match=message):
        file.read("x_features", CHANNELS)


def test_a_group_and_features_never_stored_are_unusable(tmp_path):
    with h5py.File(tmp_path / "f.hdf5", "w", userblock_size=512) as file:
        file.create_group("1_features")
        file.create_dataset("2_features", (3, CHANNELS), np.float32)
    with RegionFile(tmp_path / "f.hdf5") as file:
        with pytest.raises(UnusableRegions, match="not a dataset"):
            file.place("1_features")
        with pytest.raises(UnusableRegions, match="nothing but zeros"):
            file.read("2_features", CHANNELS)


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
        file.read("1_features", CHANNELS)


def test_a_file_cut_while_it_is_read_is_told(tmp_path):
    path = make_regions(tmp_path / "f.hdf5", 4)
    with RegionFile(path) as file:
        place = file.place("3_features")
        os.truncate(path, place.offset + 10)
        with pytest.raises(UnusableRegions, match="ends within 3_features"):
            file.read("3_features", CHANNELS)


@pytest.mark.parametrize("content", (None, b"", b"no HDF5 at all", "cut"))
def test_files_that_are_no_hdf5_are_told(tmp_path, content):
    path = tmp_path / "f.hdf5"
    if content == "cut":
        make_regions(path)
        os.truncate(path, path.stat().st_size // 2)
    elif content is not None:
        path.write_bytes(content)
    with pytest.raises(OSError, match="Expected an HDF5 file of region features. Received: .*f.h"):
        RegionFile(path)


def test_grids_are_not_cut(tmp_path):
    write_regions(tmp_path / "f.hdf5", [("1", features_of(1, 64))], {"grid": 64})
    with pytest.raises(ValueError, match="--max-regions 64"):
        RegionFile(tmp_path / "f.hdf5")
    with RegionFile(tmp_path / "f.hdf5", limit=64) as file:
        assert len(file.read("1_features", CHANNELS)) == 64
        assert file.about == {"grid": 64}
    with pytest.raises(ValueError, match="max_regions=0"):
        RegionFile(tmp_path / "f.hdf5", limit=0)


def test_a_file_that_is_open_already_is_read_all_the_same(tmp_path):
    path = make_regions(tmp_path / "f.hdf5")
    with h5py.File(path) as _, RegionFile(path) as first, RegionFile(path) as second:
        for file in (first, second):
            np.testing.assert_array_equal(file.read("1_features", CHANNELS), features_of(1, 2))


@pytest.mark.parametrize("grid", ("8x8", [8, 8], 64.0))
def test_what_others_call_a_grid_says_nothing(tmp_path, grid):
    write_regions(tmp_path / "f.hdf5", [("1", FEATURES)], {"grid": grid})
    with RegionFile(tmp_path / "f.hdf5") as file:
        assert file.grid is None


def test_a_file_takes_its_name_only_once_it_is_whole(tmp_path):
    path = tmp_path / "f.hdf5"
    write_regions(path, [("1", FEATURES)], {"network": "tiny", "image_size": [32, 32]})

    def broken():
        yield "2", FEATURES
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        write_regions(path, broken(), {})
    with RegionFile(path) as file:
        assert file.photos() == ["1"]
        assert file.about == {"network": "tiny", "image_size": [32, 32]}


def test_opening_a_file_of_many_photos_looks_at_none_of_them(tmp_path, monkeypatch):
    path = make_regions(tmp_path / "f.hdf5", 500)
    monkeypatch.setattr(RegionFile, "_look", lambda *_: pytest.fail("looked"))
    with RegionFile(path) as file:
        assert file.find(["499"]) == "499_features"
