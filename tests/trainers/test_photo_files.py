"""Photos are decoded as for captioning, varied where asked, and checked before training."""

from __future__ import annotations

import os
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from helpers.data_maker import SIZE, make_photos
from PIL import Image

from effcap.images import load_photo, read_photo
from effcap.trainers import (
    Augmentation,
    CaptionedPhoto,
    PhotoFiles,
    check_photos,
)
from effcap.trainers.data import photos as photo_files

STRONG = Augmentation(mirror=True, crop=0.3, colour=0.4)


@pytest.fixture
def paths(tmp_path):
    return [tmp_path / name for name, _ in make_photos(tmp_path, 5)]


@pytest.mark.parametrize("fit", ("squash", "crop", "pad"))
def test_photos_come_as_the_model_sees_them_when_captioning(paths, fit):
    images = PhotoFiles(paths, (SIZE, 20), fit).load(np.array([2, 0]), np.zeros(2, bool))["images"]
    assert images.shape == (2, SIZE, 20, 3) and images.dtype == np.uint8
    assert np.array_equal(images[0], load_photo(paths[2], (SIZE, 20), fit))
    assert np.array_equal(images[1], load_photo(paths[0], (SIZE, 20), fit))


def test_mirrored_photos_are_flipped_from_left_to_right_and_others_are_not(paths):
    source = PhotoFiles(paths, (SIZE, SIZE))
    plain = source.load(np.arange(3), np.zeros(3, bool))["images"]
    mixed = source.load(np.arange(3), np.array([True, False, True]))["images"]
    assert np.array_equal(mixed[[0, 2]], plain[[0, 2], :, ::-1])
    assert np.array_equal(mixed[1], plain[1])


def test_a_varied_photo_is_its_view_at_full_detail_whatever_the_batch_order_or_thread(paths):
    source = PhotoFiles(paths, (SIZE, SIZE), "crop", STRONG)
    draws = np.random.default_rng(0).integers(2**64, size=5, dtype=np.uint64)
    mirror = np.array([True, False, False, True, True])
    together = source.load(np.arange(5), mirror, draws)["images"]
    for i, draw in enumerate(draws):
        view = STRONG.view(draw)
        image = view.paint(read_photo(paths[i], (SIZE, SIZE), "crop", view.region))
        expected = np.asarray(image)[:, ::-1] if mirror[i] else np.asarray(image)
        assert np.array_equal(together[i], expected)
    order = np.array([3, 0, 4, 2, 1])
    assert np.array_equal(
        source.load(order, mirror[order], draws[order])["images"], together[order]
    )

    def alone(i):
        return source.load(np.array([i]), mirror[[i]], draws[[i]])["images"][0]

    with ThreadPoolExecutor(4) as pool:
        assert np.array_equal(list(pool.map(alone, order)), together[order])


def test_without_draws_nothing_is_varied(paths):
    varied, plain = (
        PhotoFiles(paths, (SIZE, SIZE), "squash", STRONG),
        PhotoFiles(paths, (SIZE,) * 2),
    )
    arguments = np.arange(5), np.zeros(5, bool)
    assert np.array_equal(varied.load(*arguments)["images"], plain.load(*arguments)["images"])


def test_the_fingerprint_is_of_the_files_and_how_they_are_read(paths, tmp_path):
    def fingerprint(size=(SIZE, SIZE), fit="squash", augmentation=None):
        return PhotoFiles(paths, size, fit, augmentation).fingerprint

    found = [fingerprint(), fingerprint((SIZE, 20)), fingerprint(fit="pad")]
    found.append(fingerprint(augmentation=STRONG))
    os.truncate(paths[2], 100)
    found.append(fingerprint())
    assert len(set(found)) == 5 and fingerprint() == found[-1]


def test_missing_truncated_and_undecodable_photos_are_found(tmp_path):
    names = [name for name, _ in make_photos(tmp_path, 7)]
    whole = (tmp_path / names[1]).read_bytes()
    (tmp_path / names[1]).write_bytes(whole[: len(whole) // 2])
    (tmp_path / names[2]).write_bytes(b"<html>not found</html>")
    (tmp_path / names[3]).unlink()
    (tmp_path / names[4]).write_bytes(whole[: len(whole) // 2] + b"\xff\xd9")  # an end marker
    (tmp_path / names[5]).unlink()
    (tmp_path / names[5]).mkdir()
    photos = [CaptionedPhoto(tmp_path / name, ("a", "b")) for name in names]
    good, problems = check_photos(photos, (SIZE, SIZE))
    assert [photo.path.name for photo in good] == [names[0], names[6]]
    assert [problem.where for problem in problems] == [str(tmp_path / name) for name in names[1:6]]
    assert [problem.captions for problem in problems] == [2] * 5
    reasons = ("truncated", "not an image", "no such file", "data end before", "folder")
    for problem, reason in zip(problems, reasons, strict=True):
        assert reason in problem.reason


def test_photos_that_were_checked_are_not_decoded_again_unless_they_changed(
    paths, tmp_path, monkeypatch
):
    decoded = []

    def spy(path, size):
        decoded.append(path)
        return load_photo(path, size)

    monkeypatch.setattr(photo_files, "load_photo", spy)
    record = tmp_path / "run" / "checked"
    bad, changed = paths[1], paths[3]
    bad.write_bytes(b"no photo")
    photos = [CaptionedPhoto(path, ("a",)) for path in paths]

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


@pytest.mark.skipif(os.geteuid() == 0, reason="nothing is forbidden to root")
def test_a_photo_that_may_not_be_read_is_found(paths):
    paths[0].chmod(0)
    _, problems = check_photos([CaptionedPhoto(paths[0], ("a",))], (SIZE, SIZE))
    assert "Permission denied" in problems[0].reason


def test_the_check_decodes_no_photo_larger_than_needed(tmp_path):
    Image.new("RGB", (6000, 4000)).save(tmp_path / "large.jpg")
    photo = CaptionedPhoto(tmp_path / "large.jpg", ("a",))
    assert check_photos([photo], (SIZE, SIZE)) == ([photo], [])
