"""Region features become batches of the right photos; what cannot be used is named and counted."""

from __future__ import annotations

import os
import shutil

import h5py
import numpy as np
import pytest
from helpers.data_maker import make_captioner, write_csv
from helpers.region_maker import (
    CHANNELS,
    features_of,
    make_annotations,
    make_regions,
    region_hparams,
)

from effcap.captioner import Captioner
from effcap.images import UnreadablePhoto
from effcap.tokenizers.tokenizer import Tokenizer
from effcap.trainers import (
    RegionData,
    TooManyProblems,
    photo_ids,
    read_jsons,
    region_dataset,
)
from effcap.trainers.data.regions.region_file import RegionFile
from effcap.trainers.options.run import RunOptions

CAPTIONS = [f"{start} {colour} square." for start in ("A", "There is a") for colour in ("red",)]


@pytest.fixture(scope="module")
def captioner() -> Captioner:
    return Captioner.from_hparams(region_hparams(), Tokenizer.train(CAPTIONS, 280))


def read(folder, numbers=range(12), limit=50, names="COCO_val2014_{:012}.jpg") -> RegionData:
    path = make_annotations(folder / "captions.json", numbers, names)
    file = RegionFile(folder / "f.hdf5", limit)
    return RegionData(*read_jsons([path]), file, photo_ids([path]))


def seen(batches) -> dict[str, np.ndarray]:
    """Of each photo, the regions that a batch has of it, by the photo's name."""
    found = {}
    for index in range(len(batches)):
        inputs, _, weights = batches[index]
        members = batches._batches[index][1]
        assert inputs["regions"].dtype == np.float32
        for row in np.flatnonzero(weights.any(axis=1)):
            found[batches.paths[members[row]].name] = inputs["regions"][row]
    return found


@pytest.mark.parametrize("form", ("{}_features", "{}"))
@pytest.mark.parametrize("names", ("COCO_val2014_{:012}.jpg", "{:012}.jpg", "photo-{}.png"))
def test_photos_of_coco_are_found_by_their_ids(tmp_path, captioner, form, names):
    make_regions(tmp_path / "f.hdf5", 9, form)
    path = make_annotations(tmp_path / "captions.json", range(9), names)
    batches = region_dataset(tmp_path / "f.hdf5", path, captioner, batch_size=4)
    found = seen(batches)
    assert len(found) == batches.images == 9 and not batches.problems
    for number in range(9):
        rows = 1 + number % 4
        regions = found[names.format(number)]
        assert regions.shape == (4, CHANNELS)  # as many as the photo with the most has
        np.testing.assert_array_equal(regions[:rows], features_of(number, rows))
        assert not regions[rows:].any()


@pytest.mark.parametrize("key", ("p{}.jpg", "p{}", "a/p{}.jpg", "a/p{}"))
def test_photos_of_a_csv_are_found_by_their_names(tmp_path, captioner, key):
    make_regions(tmp_path / "f.hdf5", 5, key + "_features")
    path = write_csv(tmp_path / "c.csv", [(f"a/p{n}.jpg", CAPTIONS) for n in range(5)])
    if key == "p{}.jpg":
        with pytest.raises(TooManyProblems, match="Received: others, such as p0.jpg_features"):
            region_dataset(tmp_path / "f.hdf5", path, captioner)
        return
    found = seen(region_dataset(tmp_path / "f.hdf5", path, captioner, batch_size=2))
    np.testing.assert_array_equal(found["p3.jpg"], features_of(3, 4))


def test_at_most_the_first_regions_are_used_and_it_is_said(tmp_path, captioner):
    make_regions(tmp_path / "f.hdf5", 8)
    with pytest.warns(UserWarning, match="of 4 photos with more regions, the first 2 are used"):
        batches = region_dataset(
            tmp_path / "f.hdf5",
            make_annotations(tmp_path / "c.json", range(8)),
            captioner,
            max_regions=2,
        )
    regions = seen(batches)["COCO_val2014_000000000007.jpg"]
    np.testing.assert_array_equal(regions, features_of(7, 4)[:2])


def damaged(folder) -> None:
    """Features of photos 0 ... 9, five of which cannot be used, and none of 10 and 11."""
    make_regions(folder / "f.hdf5", 10)
    changes = {
        2: np.full((2, CHANNELS), np.nan),
        3: features_of(3, 2, CHANNELS + 1),
        4: np.ones(CHANNELS),
        5: np.zeros((0, CHANNELS)),
        6: np.zeros((2, CHANNELS)),
    }
    with h5py.File(folder / "f.hdf5", "a") as file:
        for number, features in changes.items():
            del file[f"{number}_features"]
            file[f"{number}_features"] = features


def test_photos_without_usable_features_are_named_with_the_reason(tmp_path, captioner):
    damaged(tmp_path)
    batches, summary = read(tmp_path).make_batches(
        "training", captioner, max_bad=0.6, log=tmp_path / "log.txt", batch_size=2
    )
    assert sorted(seen(batches)) == [f"COCO_val2014_{n:012}.jpg" for n in (0, 1, 7, 8, 9)]
    reasons = {problem.where[-6:-4]: problem.reason for problem in batches.problems}
    expected = {
        "02": "expected numbers in 2_features. Received: nan in row 0",
        "03": "expected 3_features of width 6. Received: 7",
        "04": "expected 4_features of shape (N, C), numbers. Received: shape (6,) of float64",
        "05": "Received: shape (0, 6) of float64",
        "06": "expected a region in 6_features. Received: nothing but zeros",
        "10": "COCO_val2014_000000000010_features",
        "11": "Received: others, such as 0_features",
    }
    assert reasons.keys() == expected.keys()
    assert all(text in reasons[key] for key, text in expected.items())
    assert summary.startswith("training data: 14 of 24 captions (58.33%) left out")
    assert len((tmp_path / "log.txt").read_text().splitlines()) == 7


def test_too_many_unusable_features_stop(tmp_path, captioner):
    damaged(tmp_path)
    with pytest.raises(TooManyProblems, match="14 of 24 captions"):
        read(tmp_path).make_batches("training", captioner, max_bad=0.5)


def test_photos_that_would_share_features_are_not_guessed_at(tmp_path, captioner):
    make_regions(tmp_path / "f.hdf5", 4, "p{}_features")
    photos = ["a/p0.jpg", "b/p0.jpg", "p1.jpg", "p2.jpg", "p3.jpg"]
    path = write_csv(tmp_path / "c.csv", [(name, CAPTIONS) for name in photos])
    with pytest.warns(UserWarning, match="features of its own. Received: p0_features, for 2 ph"):
        batches = region_dataset(tmp_path / "f.hdf5", path, captioner, max_bad=0.5)
    assert sorted(seen(batches)) == ["p1.jpg", "p2.jpg", "p3.jpg"]


def test_features_of_another_width_are_told_in_a_line(tmp_path, captioner):
    with h5py.File(tmp_path / "f.hdf5", "w") as file:
        for number in range(12):
            file[f"{number}_features"] = features_of(number, 3, 9)
    with pytest.raises(ValueError, match=r"width 6 .*Received: width 9 .*encoder.channels=9$"):
        read(tmp_path).make_batches("training", captioner)


def test_a_captioner_of_photos_is_refused(tmp_path):
    make_regions(tmp_path / "f.hdf5")
    with pytest.raises(ValueError, match="Expected a captioner of region features.*images"):
        read(tmp_path).make_batches("training", make_captioner())


def run_options(folder, *settings, **more) -> RunOptions:
    return RunOptions(model="visualgpt", out=folder / "run", settings=settings, **more)


@pytest.mark.parametrize("setting", ("mirror=true", "crop=0.5", "colour=0.2"))
def test_photos_are_not_varied(tmp_path, captioner, setting):
    make_regions(tmp_path / "f.hdf5")
    options = run_options(tmp_path, f"training.{setting}")
    with pytest.raises(ValueError, match=f"no mirror, crop or colour.*{setting.split('=')[0]}"):
        read(tmp_path).batches("training", captioner, options)
    assert read(tmp_path).batches("validation", captioner, options)[0].images == 12


def test_a_share_of_the_photos_is_chosen_by_the_seed(tmp_path, captioner):
    make_regions(tmp_path / "f.hdf5", 40)
    data = read(tmp_path, range(40))
    chosen = []
    for seed in (0, 0, 1):
        options = run_options(tmp_path, train_percentage=0.2)
        batches, _ = data.subset(0.2, seed).batches("training", captioner, options)
        chosen.append(batches.names)
    assert len(chosen[0]) == 8
    assert chosen[0] == chosen[1] != chosen[2]
    data = read(tmp_path, reversed(range(40))).subset(0.2, 0)
    batches, _ = data.batches("training", captioner, options)
    assert sorted(batches.names) == sorted(chosen[0])  # whatever the order of the file


def test_the_fingerprint_tells_other_features_and_no_other_file(tmp_path, captioner):
    make_regions(tmp_path / "f.hdf5")

    def fingerprint(limit=50, **more):
        data = read(tmp_path, limit=limit, **more)
        return data.make_batches("training", captioner, batch_size=4)[0].fingerprint

    first = fingerprint()
    shutil.move(tmp_path / "f.hdf5", tmp_path / "copy.hdf5")
    make_regions(tmp_path / "f.hdf5", 20)  # others besides
    assert fingerprint() == first
    assert fingerprint(limit=2) != first
    assert fingerprint(numbers=range(11)) != first
    with h5py.File(tmp_path / "f.hdf5", "a") as file:
        file["3_features"][:] += 1
    assert fingerprint() != first


def test_features_found_good_are_not_read_again_until_the_file_changes(
    tmp_path, captioner, monkeypatch
):
    make_regions(tmp_path / "f.hdf5")
    reads = []
    real = RegionFile.read
    monkeypatch.setattr(
        RegionFile, "read", lambda self, *given: (reads.append(given), real(self, *given))[1]
    )

    def problems():
        reads.clear()
        batches, _ = read(tmp_path).make_batches(
            "training", captioner, record=tmp_path / "record.json", max_bad=0.5
        )
        return len(batches.problems), len(reads)

    assert problems() == (0, 12)
    assert problems() == (0, 0)
    with h5py.File(tmp_path / "f.hdf5", "a") as file:
        file["3_features"][:] = np.nan
    assert problems() == (1, 12)
    (tmp_path / "record.json").write_text("[]")
    assert problems() == (1, 12)


def test_a_file_cut_in_training_stops_it_with_the_reason(tmp_path, captioner):
    make_regions(tmp_path / "f.hdf5")
    batches, _ = read(tmp_path).make_batches("training", captioner, batch_size=12)
    os.truncate(tmp_path / "f.hdf5", batches.source.file.place("11_features").offset + 8)
    with pytest.raises(UnreadablePhoto, match="f.hdf5 ends within 11_features"):
        batches[0]
    assert "ends within" in str(batches.failure)


def test_photos_need_not_be_there(tmp_path, captioner):
    make_regions(tmp_path / "f.hdf5")
    batches, _ = read(tmp_path).make_batches("training", captioner)
    samples = batches.samples(3)
    assert [sample.photo for sample in samples] == [None] * 3
    np.testing.assert_array_equal(samples[1].inputs["regions"][:2], features_of(1, 2))
