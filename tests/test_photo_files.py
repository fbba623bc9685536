"""Photos are decoded as for captioning, mirrored where asked, and checked before training."""

from __future__ import annotations

import numpy as np
from data_maker import SIZE, make_photos

from effcap.photos import load_photo
from effcap.trainers import CaptionedPhoto, PhotoFiles, check_photos


def test_photos_come_as_the_model_sees_them_when_captioning(tmp_path):
    paths = [tmp_path / name for name, _ in make_photos(tmp_path, 3)]
    images = PhotoFiles(paths, (SIZE, 20)).load(np.array([2, 0]), np.zeros(2, bool))
    assert images.shape == (2, SIZE, 20, 3) and images.dtype == np.uint8
    assert np.array_equal(images[0], load_photo(paths[2], (SIZE, 20)))
    assert np.array_equal(images[1], load_photo(paths[0], (SIZE, 20)))


def test_mirrored_photos_are_flipped_from_left_to_right_and_others_are_not(tmp_path):
    paths = [tmp_path / name for name, _ in make_photos(tmp_path, 3)]
    source = PhotoFiles(paths, (SIZE, SIZE), mirrored=True)
    plain = source.load(np.arange(3), np.zeros(3, bool))
    mixed = source.load(np.arange(3), np.array([True, False, True]))
    assert np.array_equal(mixed[[0, 2]], plain[[0, 2], :, ::-1])
    assert np.array_equal(mixed[1], plain[1])


def test_missing_truncated_and_undecodable_photos_are_found(tmp_path):
    names = [name for name, _ in make_photos(tmp_path, 5)]
    whole = (tmp_path / names[1]).read_bytes()
    (tmp_path / names[1]).write_bytes(whole[: len(whole) // 2])
    (tmp_path / names[2]).write_bytes(b"<html>not found</html>")
    (tmp_path / names[3]).unlink()
    photos = [CaptionedPhoto(tmp_path / name, ("a", "b")) for name in names]
    good, problems = check_photos(photos, (SIZE, SIZE))
    assert [photo.path.name for photo in good] == [names[0], names[4]]
    assert [problem.where for problem in problems] == [str(tmp_path / name) for name in names[1:4]]
    assert [problem.captions for problem in problems] == [2, 2, 2]
    assert "truncated" in problems[0].reason
    assert "not an image" in problems[1].reason
    assert "no such file" in problems[2].reason
