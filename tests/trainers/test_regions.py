"""Tests of datasets of region features."""

from __future__ import annotations

import os
import re
import shutil

import h5py
import numpy as np
import pytest

from effcap.captioner import Captioner
from effcap.images import UnreadablePhoto
from effcap.tokenizers import Tokenizer
from effcap.trainers import (
    Augmentation,
    RegionDataset,
    RunOptions,
    TooManyProblems,
    read_regions,
)
from effcap.trainers.data.regions.region_file import RegionFile, write_regions
from helpers.data_maker import make_captioner, tiny_hparams, write_csv
from helpers.region_maker import (
    FEATURE_DIM,
    features_of,
    make_annotations,
    make_regions,
    region_hparams,
)

CAPTIONS = ("A red square.", "There is a red square.")


@pytest.fixture(scope="module")
def captioner() -> Captioner:
    return Captioner.from_hparams(region_hparams(), Tokenizer.train(CAPTIONS, 280))


def read(
    folder, numbers=range(12), max_regions=50, names="COCO_val2014_{:012}.jpg"
) -> RegionDataset:
    """Reads the features in a folder, with captions in COCO's format."""
    path = make_annotations(folder / "captions.json", numbers, names)
    return read_regions(folder / "f.hdf5", path, max_regions=max_regions)


def regions_by_photo(batches) -> dict[str, np.ndarray]:
    """Returns the regions (S, C) of all photos in an epoch by file name."""
    regions = {}
    for index in range(len(batches)):
        inputs, _, weights = batches[index]
        members = batches._batches[index][1]
        assert inputs["regions"].dtype == np.float32
        for row in np.flatnonzero(weights.any(axis=1)):
            regions[batches.paths[members[row]].name] = inputs["regions"][row]
    return regions


@pytest.mark.parametrize("form", ("{}_features", "{}"))
@pytest.mark.parametrize("names", ("COCO_val2014_{:012}.jpg", "{:012}.jpg", "photo-{}.png"))
def test_features_are_found_by_coco_id(tmp_path, captioner, form, names):
    make_regions(tmp_path / "f.hdf5", 9, form)
    batches = read(tmp_path, range(9), names=names).batches(captioner, batch_size=4)
    regions = regions_by_photo(batches)
    assert len(regions) == batches.num_images == 9 and not batches.problems
    for number in range(9):
        rows = 1 + number % 4
        padded = regions[names.format(number)]
        assert padded.shape == (4, FEATURE_DIM)  # the largest number of regions
        np.testing.assert_array_equal(padded[:rows], features_of(number, rows))
        assert not padded[rows:].any()


@pytest.mark.parametrize("key", ("p{}.jpg", "p{}", "a/p{}.jpg", "a/p{}"))
def test_features_are_found_by_the_name_in_a_csv_file(tmp_path, captioner, key):
    make_regions(tmp_path / "f.hdf5", 5, key + "_features")
    data = [(f"a/p{n}.jpg", CAPTIONS) for n in range(5)]
    path = write_csv(tmp_path / "c.csv", data, ("file", "text"))
    columns = {"image_column": "file", "caption_column": "text"}
    dataset = read_regions(tmp_path / "f.hdf5", path, **columns)
    if key == "p{}.jpg":
        with pytest.raises(TooManyProblems, match="Received: others, such as p0.jpg_features"):
            dataset.batches(captioner)
        return
    regions = regions_by_photo(dataset.batches(captioner, batch_size=2))
    np.testing.assert_array_equal(regions["p3.jpg"], features_of(3, 4))


def test_only_the_first_regions_are_used_with_a_warning(tmp_path, captioner):
    make_regions(tmp_path / "f.hdf5", 8)
    dataset = read(tmp_path, range(8), max_regions=2)
    with pytest.warns(UserWarning, match="only the first 2 regions are used of 4 photos"):
        batches = dataset.batches(captioner)
    regions = regions_by_photo(batches)["COCO_val2014_000000000007.jpg"]
    np.testing.assert_array_equal(regions, features_of(7, 4)[:2])


def damage(folder) -> None:
    """Writes features of photos 0 to 9, five of them unusable, and none of 10 and 11."""
    make_regions(folder / "f.hdf5", 10)
    changes = {
        2: np.full((2, FEATURE_DIM), np.nan),
        3: features_of(3, 2, FEATURE_DIM + 1),
        4: np.ones(FEATURE_DIM),
        5: np.zeros((0, FEATURE_DIM)),
        6: np.zeros((2, FEATURE_DIM)),
    }
    with h5py.File(folder / "f.hdf5", "a") as file:
        for number, features in changes.items():
            del file[f"{number}_features"]
            file[f"{number}_features"] = features


def test_photos_without_usable_features_are_named_with_reasons(tmp_path, captioner):
    damage(tmp_path)
    batches = read(tmp_path).batches(captioner, max_bad=0.6, folder=tmp_path, batch_size=2)
    usable = [f"COCO_val2014_{n:012}.jpg" for n in (0, 1, 7, 8, 9)]
    assert sorted(regions_by_photo(batches)) == usable
    reasons = {problem.where[-6:-4]: problem.reason for problem in batches.problems}
    expected = {
        "02": "expected finite numbers in 2_features. Received: nan in row 0",
        "03": "expected 3_features of width 6. Received: 7",
        "04": "expected 4_features of shape (N, C), numeric. Received: shape (6,) of float64",
        "05": "Received: shape (0, 6) of float64",
        "06": "expected at least one region in 6_features. Received: only zeros",
        "10": "COCO_val2014_000000000010_features",
        "11": "Received: others, such as 0_features",
    }
    assert reasons.keys() == expected.keys()
    assert all(text in reasons[key] for key, text in expected.items())
    assert batches.summary.startswith("training data: 14 of 24 captions (58.33%) left out")
    assert len((tmp_path / "left_out_training.txt").read_text().splitlines()) == 7
    with pytest.raises(TooManyProblems, match="14 of 24 captions"):
        read(tmp_path).batches(captioner, max_bad=0.5)


def test_photos_that_match_the_same_features_are_left_out(tmp_path, captioner):
    make_regions(tmp_path / "f.hdf5", 4, "p{}_features")
    photos = ["a/p0.jpg", "b/p0.jpg", "p1.jpg", "p2.jpg", "p3.jpg"]
    path = write_csv(tmp_path / "c.csv", [(name, CAPTIONS) for name in photos])
    dataset = read_regions(tmp_path / "f.hdf5", path)
    with pytest.warns(UserWarning, match="its own features. Received: p0_features, which 2 photos"):
        batches = dataset.batches(captioner, max_bad=0.5)
    assert sorted(regions_by_photo(batches)) == ["p1.jpg", "p2.jpg", "p3.jpg"]


def test_features_of_another_width_are_rejected(tmp_path, captioner):
    with h5py.File(tmp_path / "f.hdf5", "w") as file:
        for number in range(12):
            file[f"{number}_features"] = features_of(number, 3, 9)
    with pytest.raises(ValueError, match=r"width 6 .*Received: width 9 .*encoder.feature_dim=9$"):
        read(tmp_path).batches(captioner)


def write_grids(folder, rows: int = 4, feature_dim: int = 8) -> None:
    """Writes features (N, C) of photos 0 to 11; the tiny captioner's backbone has (4, 8)."""
    regions = ((str(n), features_of(n, rows, feature_dim)) for n in range(12))
    write_regions(folder / "f.hdf5", regions, {})


def test_a_captioner_of_photos_takes_features_of_its_backbone(tmp_path):
    write_grids(tmp_path)
    batches = read(tmp_path).batches(make_captioner(), batch_size=4)
    assert batches[0][0].keys() == {"features", "tokens", "segments"}
    features = batches.previews(4)[3].inputs["features"]  # (S,C)
    np.testing.assert_array_equal(features, features_of(3, 4, 8))


@pytest.mark.parametrize("shape", ((3, 8), (5, 8), (4, 9)))
def test_features_of_another_shape_than_the_backbones_are_rejected(tmp_path, shape):
    write_grids(tmp_path, *shape)
    message = re.escape(f"(S, C) = (4, 8), as of the captioner's backbone. Received: {shape}")
    with pytest.raises(ValueError, match=message):
        read(tmp_path).batches(make_captioner())


def test_photos_with_other_numbers_of_positions_are_left_out(tmp_path):
    write_grids(tmp_path)
    with h5py.File(tmp_path / "f.hdf5", "a") as file:
        del file["3_features"]
        file["3_features"] = features_of(3, 2, 8)
    options = {"max_bad": 0.5, "folder": tmp_path}
    batches = read(tmp_path).batches(make_captioner(), **options)
    assert batches.num_images == 11
    (problem,) = batches.problems
    assert problem.reason == "expected 3_features of 4 positions. Received: 2"


def test_all_positions_of_a_backbone_are_required(tmp_path):
    write_grids(tmp_path)
    with pytest.raises(ValueError, match="of at least 4, .*max_regions=3; use --max-regions 4"):
        read(tmp_path, max_regions=3).batches(make_captioner())


def test_a_backbone_is_not_trained_on_its_features(tmp_path):
    write_grids(tmp_path)
    hparams = tiny_hparams()
    hparams["encoder"]["backbone"]["trainable_blocks"] = "all"
    captioner = Captioner.from_hparams(hparams, Tokenizer.train(CAPTIONS, 280))
    with pytest.raises(ValueError, match="frozen backbone.*trainable_blocks='all'; use --set"):
        read(tmp_path).batches(captioner)


def test_a_captioner_of_other_inputs_is_rejected(tmp_path, captioner, monkeypatch):
    make_regions(tmp_path / "f.hdf5")
    monkeypatch.setattr(type(captioner.encoder), "input_keys", ("audio", "tags"))
    with pytest.raises(ValueError, match="of region features or of photos.*of audio and tags"):
        read(tmp_path).batches(captioner)


@pytest.mark.parametrize(
    "option", ({"horizontal_flip": True}, {"random_crop": 0.5}, {"color_jitter": 0.2})
)
def test_augmentation_is_rejected(tmp_path, captioner, option):
    make_regions(tmp_path / "f.hdf5")
    with pytest.raises(ValueError, match=f"not to region features.*{next(iter(option))}"):
        read(tmp_path).batches(captioner, augmentation=Augmentation(**option))


def test_options_of_photos_do_not_affect_validation(tmp_path, captioner):
    training = {"random_crop": 0.5, "color_jitter": 0.2, "horizontal_flip": True}
    options = RunOptions(model="lite0-small", out=tmp_path / "run", training=training)
    make_regions(tmp_path / "f.hdf5")
    dataset = read(tmp_path)
    with pytest.raises(ValueError, match="not to region features"):
        dataset.batches(captioner, **options.batch_options("training"))
    assert dataset.batches(captioner, **options.batch_options("validation")).num_images == 12


def test_a_fraction_of_the_photos_is_selected_by_the_seed(tmp_path, captioner):
    make_regions(tmp_path / "f.hdf5", 40)
    dataset = read(tmp_path, range(40))
    first, same, other = (dataset.subset(0.2, seed).batches(captioner).names for seed in (0, 0, 1))
    assert len(first) == 8
    assert first == same != other
    reordered = read(tmp_path, reversed(range(40))).subset(0.2, 0).batches(captioner)
    assert sorted(reordered.names) == sorted(first)


def test_the_fingerprint_depends_only_on_the_features_used(tmp_path, captioner):
    make_regions(tmp_path / "f.hdf5")

    def fingerprint(**arguments):
        # Without a run folder, cut regions are a warning.
        batches = read(tmp_path, **arguments).batches(captioner, batch_size=4, folder=tmp_path)
        return batches.fingerprint

    first = fingerprint()
    shutil.move(tmp_path / "f.hdf5", tmp_path / "copy.hdf5")
    make_regions(tmp_path / "f.hdf5", 20)  # more photos
    assert fingerprint() == first
    assert fingerprint(max_regions=2) != first
    assert fingerprint(numbers=range(11)) != first
    with h5py.File(tmp_path / "f.hdf5", "a") as file:
        file["3_features"][:] += 1
    assert fingerprint() != first


def test_checked_features_are_read_again_only_if_the_file_changes(tmp_path, captioner, monkeypatch):
    make_regions(tmp_path / "f.hdf5")
    reads = []
    read_one = RegionFile.read
    monkeypatch.setattr(
        RegionFile,
        "read",
        lambda self, *arguments: (reads.append(arguments), read_one(self, *arguments))[1],
    )

    def counts():
        reads.clear()
        batches = read(tmp_path).batches(captioner, folder=tmp_path, max_bad=0.5)
        return len(batches.problems), len(reads)

    assert counts() == (0, 12)
    assert counts() == (0, 0)
    with h5py.File(tmp_path / "f.hdf5", "a") as file:
        file["3_features"][:] = np.nan
    assert counts() == (1, 12)
    (tmp_path / "checked_training.json").write_text("[]")
    assert counts() == (1, 12)


def test_a_file_truncated_during_training_is_an_error(tmp_path, captioner):
    make_regions(tmp_path / "f.hdf5")
    batches = read(tmp_path).batches(captioner, batch_size=12)
    os.truncate(tmp_path / "f.hdf5", batches.loader.file.layout("11_features").offset + 8)
    with pytest.raises(UnreadablePhoto, match="f.hdf5 ends within 11_features"):
        batches[0]
    assert "ends within" in str(batches.failure)


def test_photo_files_need_not_exist(tmp_path, captioner):
    make_regions(tmp_path / "f.hdf5")
    previews = read(tmp_path).batches(captioner).previews(3)
    assert [preview.photo for preview in previews] == [None] * 3
    np.testing.assert_array_equal(previews[1].inputs["regions"][:2], features_of(1, 2))
