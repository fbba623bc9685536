"""Cached features are the backbone's, and are computed again whenever they would not be."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import keras
import numpy as np
import pytest
from helpers.data_maker import SIZE, make_captioner, make_photos, tiny_hparams

from effcap.backbones.backbone import Backbone
from effcap.trainers import Augmentation, PhotoFiles, cache_features
from effcap.trainers.data import feature_cache as features


@pytest.fixture
def photos(tmp_path):
    folder = tmp_path / "photos"
    return [folder / name for name, _ in make_photos(folder, 5)]


@pytest.fixture
def computed(monkeypatch):
    """How often features were computed."""
    calls = []
    compute = features.compute_features

    def spy(*arguments):
        calls.append(arguments)
        compute(*arguments)

    monkeypatch.setattr(features, "compute_features", spy)
    return calls


def tiny_backbone(**changes) -> Backbone:
    keras.utils.set_random_seed(0)
    return Backbone(**{**tiny_hparams()["encoder"]["backbone"], **changes})


def test_cached_features_are_the_backbones_up_to_float16(tmp_path, photos):
    backbone = tiny_backbone()
    cached = cache_features(backbone, photos, tmp_path / "cache", mirrored=True, batch_size=2)
    source = PhotoFiles(photos, (SIZE, SIZE))
    numbers, mirror = np.array([4, 0, 3]), np.array([False, True, True])
    expected = keras.ops.convert_to_numpy(backbone(source.load(numbers, mirror)["images"]))
    received = cached.load(numbers, mirror)["features"]
    assert received.dtype == np.float16 and received.shape == (3, *backbone.feature_shape)
    np.testing.assert_allclose(received, expected, rtol=1e-3, atol=1e-4)
    assert expected.std() > 0.01


def test_the_model_makes_the_same_of_photos_and_of_their_cached_features(tmp_path, photos):
    captioner = make_captioner()
    cached = cache_features(captioner.encoder.backbone, photos, tmp_path / "cache")
    numbers, mirror = np.arange(5), np.zeros(5, bool)
    tokens = np.tile(np.arange(6), (5, 1))
    plain, kept = (
        captioner({**source.load(numbers, mirror), "tokens": tokens})
        for source in (PhotoFiles(photos, (SIZE, SIZE)), cached)
    )
    np.testing.assert_allclose(plain, kept, atol=2e-3)


def test_features_are_computed_once(tmp_path, photos, computed):
    first = cache_features(tiny_backbone(), photos, tmp_path / "cache")
    again = cache_features(tiny_backbone(), photos, tmp_path / "cache")
    assert len(computed) == 1
    assert np.array_equal(first.features, again.features)


def test_features_of_fewer_photos_in_another_order_are_taken_from_those_kept(
    tmp_path, photos, computed
):
    every = cache_features(tiny_backbone(), photos, tmp_path / "cache", mirrored=True)
    some = [photos[3], photos[1], photos[2]]
    for mirrored in (True, False):
        found = cache_features(tiny_backbone(), some, tmp_path / "cache", mirrored=mirrored)
        fresh = cache_features(tiny_backbone(), some, tmp_path / f"{mirrored}", mirrored=mirrored)
        assert found.fingerprint == fresh.fingerprint and found.mirrored == mirrored
        numbers, mirror = np.array([2, 0, 1, 0]), np.array([True, False, False, True]) & mirrored
        for source, rows in ((fresh, numbers), (every, np.array([2, 3, 1, 3]))):
            expected = source.load(rows, mirror)["features"]
            assert np.array_equal(found.load(numbers, mirror)["features"], expected)
    assert len(computed) == 3


def test_features_without_the_mirrored_are_not_enough_for_them(tmp_path, photos, computed, capsys):
    cache_features(tiny_backbone(), photos, tmp_path / "cache")
    found = cache_features(tiny_backbone(), photos, tmp_path / "cache", mirrored=True, title="all")
    assert found.mirrored and len(computed) == 2
    assert "with no mirrored photos" in capsys.readouterr().err


def change_photo(backbone, photos, cache):
    shutil.copy(photos[0], photos[1])
    os.utime(photos[1], (1, 1))


def change_weights(backbone, photos, cache):
    backbone.weights[0].assign(2 * backbone.weights[0])


def add_photo(backbone, photos, cache):
    photos.append(Path(shutil.copy(photos[0], photos[0].with_name("added.png"))))


def break_index(backbone, photos, cache):
    text = (cache / "index.json").read_text()
    (cache / "index.json").write_text(text[: len(text) // 2])


def lose_features(backbone, photos, cache):
    (cache / "features.npy").unlink()


@pytest.mark.parametrize(
    ("change", "word"),
    (
        (change_photo, "with other photos"),
        (change_weights, "with another backbone"),
        (add_photo, "with other photos"),
        (break_index, "no features, or not all"),
        (lose_features, "no features"),
    ),
)
def test_a_stale_cache_is_noticed_told_and_replaced(
    tmp_path, photos, computed, capsys, change, word
):
    backbone, cache = tiny_backbone(), tmp_path / "cache"
    cache_features(backbone, photos, cache)
    change(backbone, photos, cache)
    received = cache_features(backbone, photos, cache, title="features")
    assert len(computed) == 2
    assert word in capsys.readouterr().err
    fresh = cache_features(backbone, photos, tmp_path / "fresh")
    assert np.array_equal(received.features, fresh.features)


def test_another_image_size_is_another_backbone(tmp_path, photos, computed):
    def flexible(side):
        image = keras.Input((None, None, 3))
        x = keras.layers.Conv2D(4, 16, 16, kernel_initializer="ones", name="stem")(image)
        return Backbone(keras.Model(image, x, name="flexible"), (side, side), scale=1 / 255)

    for side in (32, 48, 48):
        found = cache_features(flexible(side), photos, tmp_path / "cache")
        assert found.features.shape == (1, 5, (side // 16) ** 2, 4)
    assert len(computed) == 2


def test_another_fit_is_another_backbone_and_gives_the_features_of_that_fit(
    tmp_path, photos, computed
):
    numbers, mirror = np.arange(5), np.zeros(5, bool)
    for fit in ("squash", "crop", "crop"):
        backbone = tiny_backbone(fit=fit)
        cached = cache_features(backbone, photos, tmp_path / "cache").load(numbers, mirror)[
            "features"
        ]
        images = PhotoFiles(photos, (SIZE, SIZE), fit).load(numbers, mirror)["images"]
        expected = keras.ops.convert_to_numpy(backbone(images))
        np.testing.assert_allclose(cached, expected, rtol=1e-3, atol=1e-4)
    assert len(computed) == 2


def test_the_fingerprint_is_of_what_the_features_show_not_of_where_the_photos_lie(tmp_path, photos):
    def fingerprint(paths, **changes):
        return cache_features(tiny_backbone(**changes), paths, tmp_path / "cache").fingerprint

    moved = [Path(shutil.copy(path, tmp_path / path.name)) for path in photos]
    first = fingerprint(photos)
    assert fingerprint(moved) == first
    assert fingerprint(photos, fit="pad") != first
    assert fingerprint(photos[:3]) != first


def test_photos_varied_in_ways_no_features_are_kept_of_are_refused():
    features.check_mirrored_only(Augmentation(mirror=True))
    for varied in (Augmentation(crop=0.5), Augmentation(colour=0.1)):
        with pytest.raises(ValueError, match="no crop and no colour with cached features"):
            features.check_mirrored_only(varied)


def test_interrupted_writing_leaves_no_cache_that_counts_as_whole(tmp_path, photos, monkeypatch):
    load, calls = PhotoFiles.load, []

    def interrupted(*arguments):
        calls.append(arguments)
        if len(calls) == 2:
            raise KeyboardInterrupt
        return load(*arguments)

    backbone, cache = tiny_backbone(), tmp_path / "cache"
    monkeypatch.setattr(PhotoFiles, "load", interrupted)
    with pytest.raises(KeyboardInterrupt):
        cache_features(backbone, photos, cache, batch_size=2)
    received = cache_features(backbone, photos, cache, batch_size=2)
    assert len(calls) == 2 + 3
    assert np.all(np.abs(received.features).sum(axis=(0, 2, 3)) > 0)


def test_a_backbone_in_training_is_refused(tmp_path, photos):
    with pytest.raises(ValueError, match="trainable_blocks='all'"):
        cache_features(tiny_backbone(trainable_blocks="all"), photos, tmp_path / "cache")
    assert not (tmp_path / "cache").exists()


def test_features_too_large_for_float16_are_refused(tmp_path, photos):
    with pytest.raises(ValueError, match="below 65504"):
        cache_features(tiny_backbone(scale=1e6), photos, tmp_path / "cache")


def test_a_full_disk_is_noticed_before_writing(tmp_path, photos, monkeypatch):
    usage = shutil.disk_usage(tmp_path)._replace(free=10)
    monkeypatch.setattr(shutil, "disk_usage", lambda folder: usage)
    with pytest.raises(OSError, match="Expected room for"):
        cache_features(tiny_backbone(), photos, tmp_path / "cache")
