"""Tests of cached backbone features."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import keras
import numpy as np
import pytest

from effcap.backbones.backbone import Backbone
from effcap.backbones.registry import BACKBONES
from effcap.trainers import Augmentation, PhotoDataset, PhotoFiles, RegionDataset, cache_features
from effcap.trainers.data import feature_cache
from helpers.clip_files import SPECS, VIT
from helpers.data_maker import SIZE, make_captioner, make_photos, tiny_hparams


@pytest.fixture
def photos(tmp_path):
    folder = tmp_path / "photos"
    return [folder / name for name, _ in make_photos(folder, 5)]


@pytest.fixture
def computed(monkeypatch):
    """Records the calls of `compute_features`."""
    calls = []
    compute = feature_cache.compute_features

    def spy(*arguments):
        calls.append(arguments)
        compute(*arguments)

    monkeypatch.setattr(feature_cache, "compute_features", spy)
    return calls


def tiny_backbone(**changes) -> Backbone:
    """Returns the backbone of `tiny_hparams`."""
    keras.utils.set_random_seed(0)
    return Backbone(**{**tiny_hparams()["encoder"]["backbone"], **changes})


def test_cached_features_equal_the_backbones_up_to_float16(tmp_path, photos):
    backbone = tiny_backbone()
    cached = cache_features(backbone, photos, tmp_path / "cache", flipped=True, batch_size=2)
    loader = PhotoFiles(photos, (SIZE, SIZE))
    indices, flip = np.array([4, 0, 3]), np.array([False, True, True])
    expected = keras.ops.convert_to_numpy(backbone(loader.load(indices, flip)["images"]))
    received = cached.load(indices, flip)["features"]
    assert received.dtype == np.float16 and received.shape == (3, *backbone.feature_shape)
    np.testing.assert_allclose(received, expected, rtol=1e-3, atol=1e-4)
    assert expected.std() > 0.01


def test_image_vectors_of_clip_are_cached_apart_from_its_tokens(tmp_path, photos, monkeypatch):
    monkeypatch.setitem(BACKBONES, VIT, SPECS[VIT])
    tokens, vectors = Backbone(VIT), Backbone(VIT, output="embedding")
    assert feature_cache.backbone_fingerprint(tokens) != feature_cache.backbone_fingerprint(vectors)
    cached = cache_features(vectors, photos, tmp_path / "cache")
    received = cached.load(np.arange(5), np.zeros(5, bool))["features"]
    images = PhotoFiles(photos, (32, 32), "crop").load(np.arange(5), np.zeros(5, bool))["images"]
    expected = keras.ops.convert_to_numpy(vectors(images))
    assert received.shape == (5, 1, 24)
    np.testing.assert_allclose(received, expected, rtol=1e-2, atol=1e-3)


def test_logits_of_photos_and_of_cached_features_are_equal(tmp_path, photos):
    captioner = make_captioner()
    cached = cache_features(captioner.encoder.backbone, photos, tmp_path / "cache")
    indices, flip = np.arange(5), np.zeros(5, bool)
    tokens = np.tile(np.arange(6), (5, 1))
    of_photos, of_features = (
        captioner({**loader.load(indices, flip), "tokens": tokens})
        for loader in (PhotoFiles(photos, (SIZE, SIZE)), cached)
    )
    np.testing.assert_allclose(of_photos, of_features, atol=2e-3)


def test_features_are_computed_once(tmp_path, photos, computed):
    first = cache_features(tiny_backbone(), photos, tmp_path / "cache")
    again = cache_features(tiny_backbone(), photos, tmp_path / "cache")
    assert len(computed) == 1
    assert np.array_equal(first.features, again.features)


def test_features_of_some_photos_in_another_order_are_reused(tmp_path, photos, computed):
    every = cache_features(tiny_backbone(), photos, tmp_path / "cache", flipped=True)
    some = [photos[3], photos[1], photos[2]]
    for flipped in (True, False):
        reused = cache_features(tiny_backbone(), some, tmp_path / "cache", flipped=flipped)
        fresh = cache_features(tiny_backbone(), some, tmp_path / f"{flipped}", flipped=flipped)
        assert reused.fingerprint == fresh.fingerprint and reused.can_flip == flipped
        indices, flip = np.array([2, 0, 1, 0]), np.array([True, False, False, True]) & flipped
        for loader, rows in ((fresh, indices), (every, np.array([2, 3, 1, 3]))):
            expected = loader.load(rows, flip)["features"]
            assert np.array_equal(reused.load(indices, flip)["features"], expected)
    assert len(computed) == 3


def test_features_are_computed_again_if_flipped_ones_are_missing(
    tmp_path, photos, computed, capsys
):
    cache_features(tiny_backbone(), photos, tmp_path / "cache")
    features = cache_features(
        tiny_backbone(), photos, tmp_path / "cache", flipped=True, title="all"
    )
    assert features.can_flip and len(computed) == 2
    assert "with no flipped photos" in capsys.readouterr().err


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
        (break_index, "no complete features"),
        (lose_features, "no features"),
    ),
)
def test_an_outdated_cache_is_reported_and_replaced(
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


def test_features_are_computed_again_for_another_image_size(tmp_path, photos, computed):
    def flexible(side):
        image = keras.Input((None, None, 3))
        x = keras.layers.Conv2D(4, 16, 16, kernel_initializer="ones", name="stem")(image)
        return Backbone(keras.Model(image, x, name="flexible"), (side, side), scale=1 / 255)

    for side in (32, 48, 48):
        cached = cache_features(flexible(side), photos, tmp_path / "cache")
        assert cached.features.shape == (1, 5, (side // 16) ** 2, 4)
    assert len(computed) == 2


def test_features_are_computed_again_for_another_fit(tmp_path, photos, computed):
    indices, flip = np.arange(5), np.zeros(5, bool)
    for fit, resample in (("squash", None), ("crop", "nearest"), ("crop", "nearest")):
        backbone = tiny_backbone(fit=fit, resample=resample)
        cached = cache_features(backbone, photos, tmp_path / "cache")
        features = cached.load(indices, flip)["features"]
        images = PhotoFiles(photos, (SIZE, SIZE), fit, resample=resample).load(indices, flip)
        images = images["images"]
        expected = keras.ops.convert_to_numpy(backbone(images))
        np.testing.assert_allclose(features, expected, rtol=1e-3, atol=1e-4)
    assert len(computed) == 2


def test_the_fingerprint_does_not_depend_on_the_photos_folder(tmp_path, photos):
    def fingerprint(paths, **changes):
        return cache_features(tiny_backbone(**changes), paths, tmp_path / "cache").fingerprint

    moved = [Path(shutil.copy(path, tmp_path / path.name)) for path in photos]
    first = fingerprint(photos)
    assert fingerprint(moved) == first
    assert fingerprint(photos, fit="pad") != first
    assert fingerprint(photos, resample="bilinear") != first
    assert fingerprint(photos[:3]) != first


def test_only_flips_of_photo_files_can_be_cached():
    captioner, photos = make_captioner(), PhotoDataset([], [])
    check = feature_cache.check_cacheable
    check(captioner, Augmentation(horizontal_flip=True), [photos, None])
    for augmentation in (Augmentation(random_crop=0.5), Augmentation(color_jitter=0.1)):
        with pytest.raises(ValueError, match="Cached features are those of whole photos"):
            check(captioner, augmentation, [photos])
    with pytest.raises(ValueError, match="Expected photo files .*Received: RegionDataset"):
        check(captioner, Augmentation(), [photos, RegionDataset([], [], None)])


def test_a_captioner_without_a_backbone_is_rejected():
    with pytest.raises(ValueError, match="a captioner without a backbone"):
        feature_cache.check_frozen(None)


def test_an_interrupted_computation_leaves_no_complete_cache(tmp_path, photos, monkeypatch):
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


def test_a_trainable_backbone_is_rejected(tmp_path, photos):
    with pytest.raises(ValueError, match="trainable_blocks='all'"):
        cache_features(tiny_backbone(trainable_blocks="all"), photos, tmp_path / "cache")
    assert not (tmp_path / "cache").exists()


def test_features_too_large_for_float16_are_rejected(tmp_path, photos):
    with pytest.raises(ValueError, match="below 65504"):
        cache_features(tiny_backbone(scale=1e6), photos, tmp_path / "cache")


def test_disk_space_is_checked_before_writing(tmp_path, photos, monkeypatch):
    usage = shutil.disk_usage(tmp_path)._replace(free=10)
    monkeypatch.setattr(shutil, "disk_usage", lambda folder: usage)
    with pytest.raises(OSError, match="Not enough disk space in .* 0 MB free"):
        cache_features(tiny_backbone(), photos, tmp_path / "cache")
