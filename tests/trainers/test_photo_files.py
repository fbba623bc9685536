"""Tests of the loader, the check and the dataset of photo files."""

from __future__ import annotations

import json
import os
import warnings
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from PIL import Image

from effcap.images import load_photo, read_photo
from effcap.trainers import (
    Augmentation,
    Example,
    PhotoDataset,
    PhotoFiles,
    TooManyProblems,
    check_photos,
    read_csv,
    read_json,
)
from effcap.trainers.data import photos as photo_files
from helpers.data_maker import SIZE, make_captioner, make_data, make_photos, write_csv

STRONG = Augmentation(horizontal_flip=True, random_crop=0.3, color_jitter=0.4)


@pytest.fixture
def paths(tmp_path):
    return [tmp_path / name for name, _ in make_photos(tmp_path, 5)]


@pytest.mark.parametrize("fit", ("squash", "crop", "pad"))
def test_photos_are_loaded_as_for_captioning(paths, fit):
    images = PhotoFiles(paths, (SIZE, 20), fit).load(np.array([2, 0]), np.zeros(2, bool))["images"]
    assert images.shape == (2, SIZE, 20, 3) and images.dtype == np.uint8
    assert np.array_equal(images[0], load_photo(paths[2], (SIZE, 20), fit))
    assert np.array_equal(images[1], load_photo(paths[0], (SIZE, 20), fit))


def test_only_the_selected_photos_are_flipped(paths):
    loader = PhotoFiles(paths, (SIZE, SIZE))
    plain = loader.load(np.arange(3), np.zeros(3, bool))["images"]
    mixed = loader.load(np.arange(3), np.array([True, False, True]))["images"]
    assert np.array_equal(mixed[[0, 2]], plain[[0, 2], :, ::-1])
    assert np.array_equal(mixed[1], plain[1])


def test_an_augmented_photo_is_its_view_in_any_batch_order_and_thread(paths):
    loader = PhotoFiles(paths, (SIZE, SIZE), "crop", STRONG)
    draws = np.random.default_rng(0).integers(2**64, size=5, dtype=np.uint64)
    flip = np.array([True, False, False, True, True])
    together = loader.load(np.arange(5), flip, draws)["images"]
    for i, draw in enumerate(draws):
        view = STRONG.view(draw)
        image = view.adjust_colors(read_photo(paths[i], (SIZE, SIZE), "crop", view.region))
        expected = np.asarray(image)[:, ::-1] if flip[i] else np.asarray(image)
        assert np.array_equal(together[i], expected)
    order = np.array([3, 0, 4, 2, 1])
    reordered = loader.load(order, flip[order], draws[order])["images"]
    assert np.array_equal(reordered, together[order])

    def alone(i):
        return loader.load(np.array([i]), flip[[i]], draws[[i]])["images"][0]

    with ThreadPoolExecutor(4) as pool:
        assert np.array_equal(list(pool.map(alone, order)), together[order])


def test_without_random_numbers_nothing_is_augmented(paths):
    augmented, plain = (
        PhotoFiles(paths, (SIZE, SIZE), "squash", STRONG),
        PhotoFiles(paths, (SIZE,) * 2),
    )
    arguments = np.arange(5), np.zeros(5, bool)
    assert np.array_equal(augmented.load(*arguments)["images"], plain.load(*arguments)["images"])


def test_the_fingerprint_depends_on_files_and_loading(paths, tmp_path):
    def fingerprint(size=(SIZE, SIZE), fit="squash", augmentation=None, resample=None):
        return PhotoFiles(paths, size, fit, augmentation, resample).fingerprint

    fingerprints = [fingerprint(), fingerprint((SIZE, 20)), fingerprint(fit="pad")]
    fingerprints.append(fingerprint(augmentation=STRONG))
    fingerprints.append(fingerprint(resample="bilinear"))
    os.truncate(paths[2], 100)
    fingerprints.append(fingerprint())
    assert len(set(fingerprints)) == 6 and fingerprint() == fingerprints[-1]


def test_missing_truncated_and_undecodable_photos_are_problems(tmp_path):
    names = [name for name, _ in make_photos(tmp_path, 7)]
    whole = (tmp_path / names[1]).read_bytes()
    (tmp_path / names[1]).write_bytes(whole[: len(whole) // 2])
    (tmp_path / names[2]).write_bytes(b"<html>not found</html>")
    (tmp_path / names[3]).unlink()
    (tmp_path / names[4]).write_bytes(whole[: len(whole) // 2] + b"\xff\xd9")  # an end marker
    (tmp_path / names[5]).unlink()
    (tmp_path / names[5]).mkdir()
    photos = [Example(tmp_path / name, ("a", "b")) for name in names]
    good, problems = check_photos(photos, (SIZE, SIZE))
    assert [photo.path.name for photo in good] == [names[0], names[6]]
    assert [problem.where for problem in problems] == [str(tmp_path / name) for name in names[1:6]]
    assert [problem.num_captions for problem in problems] == [2] * 5
    reasons = ("truncated", "not an image", "no such file", "file ends before", "folder")
    for problem, reason in zip(problems, reasons, strict=True):
        assert reason in problem.reason


def test_checked_photos_are_decoded_again_only_if_they_changed(paths, tmp_path, monkeypatch):
    decoded = []

    def spy(path, size):
        decoded.append(path)
        return load_photo(path, size)

    monkeypatch.setattr(photo_files, "load_photo", spy)
    record = tmp_path / "run" / "checked"
    bad, changed = paths[1], paths[3]
    bad.write_bytes(b"no photo")
    photos = [Example(path, ("a",)) for path in paths]

    def check():
        decoded.clear()
        good, problems = check_photos(photos, (SIZE, SIZE), record=record)
        return [photo.path for photo in good], [problem.where for problem in problems]

    expected = ([path for path in paths if path != bad], [str(bad)])
    assert check() == expected and set(decoded) == set(paths)
    assert check() == expected and decoded == [bad]
    os.truncate(changed, 300)
    good, problems = check()
    assert set(decoded) == {bad, changed} and str(changed) in problems and changed not in good
    record.write_bytes(record.read_bytes()[:20])  # as a full disk may leave it
    check()
    assert len(decoded) == len(paths) - 1
    paths[0].unlink()
    assert str(paths[0]) in check()[1]


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read all files")
def test_a_photo_without_read_permission_is_a_problem(paths):
    paths[0].chmod(0)
    _, problems = check_photos([Example(paths[0], ("a",))], (SIZE, SIZE))
    assert "Permission denied" in problems[0].reason


def test_a_large_photo_is_accepted(tmp_path):
    Image.new("RGB", (6000, 4000)).save(tmp_path / "large.jpg")
    photo = Example(tmp_path / "large.jpg", ("a",))
    assert check_photos([photo], (SIZE, SIZE)) == ([photo], [])


@pytest.fixture(scope="module")
def captioner():
    return make_captioner()


def test_batches_of_a_dataset_train_with_compile_and_fit(tmp_path):
    data, captioner = make_data(tmp_path), make_captioner()
    batches = read_csv(data / "train.csv", data / "photos").batches(captioner, batch_size=4)
    assert batches.problems == [] and batches.summary == ""
    inputs, targets, weights = batches[0]
    assert inputs["images"].shape == (4, SIZE, SIZE, 3) and inputs["images"].dtype == "uint8"
    assert inputs["tokens"].shape == inputs["segments"].shape == targets.shape == weights.shape
    captioner.compile(run_eagerly=True)
    history = captioner.fit(batches, epochs=2, verbose=0).history
    assert history["cross_entropy"][1] < history["cross_entropy"][0]


def test_left_out_photos_are_named_in_a_warning(tmp_path, captioner):
    data = make_data(tmp_path)
    (data / "photos" / "3.jpg").write_bytes(b"no photo")
    dataset = read_csv(data / "train.csv", data / "photos")
    with pytest.raises(TooManyProblems, match=r"1 of 24 captions \(4.17%\)[\s\S]*3.jpg"):
        dataset.batches(captioner)
    with pytest.warns(UserWarning, match="3.jpg") as caught:
        batches = dataset.batches(captioner, max_bad=0.1)
    assert caught[0].filename == __file__
    assert batches.num_images == 11 and len(batches.problems) == 1
    assert batches.summary.startswith("training data: 1 of 24 captions (4.17%) left out")


def test_a_run_folder_gets_the_problems_and_the_record(tmp_path, captioner):
    records = [{"image": name, "text": texts} for name, texts in make_photos(tmp_path, 6)]
    (tmp_path / "a.json").write_text(json.dumps([*records, {"image": "gone.jpg", "text": "a"}]))
    dataset, folder = read_json(tmp_path / "a.json"), tmp_path / "run"
    with warnings.catch_warnings():
        warnings.simplefilter("error")  # the caller prints the summary
        batches = dataset.batches(
            captioner, name="validation", batch_size=3, max_bad=0.2, folder=folder
        )
    assert batches.num_captions == sum(len(texts) for _, texts in make_photos(tmp_path, 6))
    assert f"complete list: {folder / 'left_out_validation.txt'}" in batches.summary
    assert "no such file" in (folder / "left_out_validation.txt").read_text()
    assert (folder / "checked_validation.bin").stat().st_size == 6 * photo_files.KEY_BYTES


@pytest.mark.parametrize("fit", ("squash", "crop"))
def test_batches_use_the_augmentation_and_the_fit_of_the_captioner(tmp_path, fit):
    data, captioner = make_data(tmp_path), make_captioner()
    captioner.encoder.backbone.fit = fit
    dataset = read_csv(data / "train.csv", data / "photos")
    batches = dataset.batches(captioner, augmentation=STRONG)
    assert batches.loader.fit == fit and batches.loader.augmentation == STRONG
    first = batches[0][0]["images"]
    batches.start_epoch(1)
    assert not np.array_equal(first, batches[0][0]["images"])
    batches.start_epoch(0)
    assert np.array_equal(first, batches[0][0]["images"])


def test_data_without_captions_is_rejected(tmp_path, captioner):
    dataset = read_csv(write_csv(tmp_path / "a.csv", []))
    with pytest.raises(ValueError, match="The training data has no captions"):
        dataset.batches(captioner)


def test_unknown_batch_options_are_rejected(tmp_path, captioner):
    with pytest.raises(TypeError, match="batch_size.*Received: mirror"):
        PhotoDataset([], []).batches(captioner, mirror=True)
