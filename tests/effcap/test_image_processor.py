"""Tests of the preprocessing that transformers records."""

from __future__ import annotations

import json

import numpy as np
import pytest
from PIL import Image

from effcap.images import load_photo
from effcap.weights.image_processor import (
    BLIP_PROCESSOR,
    VIT_PROCESSOR,
    read_image_processor,
)

CLASSES = {"vit": VIT_PROCESSOR, "blip": BLIP_PROCESSOR}
SIDE = 48


def read(folder, kind, settings, file="preprocessor_config.json"):
    (folder / file).write_text(json.dumps(settings))
    return read_image_processor(folder, CLASSES[kind], (SIDE, SIDE))


@pytest.mark.parametrize(
    "kind, settings, resample",
    [
        ("vit", {"feature_extractor_type": "ViTFeatureExtractor", "size": SIDE}, "bilinear"),
        ("vit", {"size": {"height": SIDE, "width": SIDE}, "resample": 3}, "bicubic"),
        ("vit", {"image_processor_type": "ViTImageProcessorFast", "size": SIDE}, "bilinear"),
        ("blip", {"image_processor_type": "BlipImageProcessor", "size": SIDE}, "bicubic"),
        ("blip", {"size": {"shortest_edge": SIDE}, "do_pad": True, "size_divisor": 32}, "bicubic"),
        ("blip", {"size": [SIDE, SIDE], "resample": 1, "do_center_crop": False}, "lanczos"),
        ("blip", {"feature_extractor_type": "ViTFeatureExtractor", "size": SIDE}, "bilinear"),
    ],
)
def test_the_filter_is_the_recorded_one_or_that_of_the_class(kind, settings, resample, tmp_path):
    arguments, notes = read(tmp_path, kind, settings)
    assert arguments["resample"] == resample
    assert len(notes) == ("shortest_edge" in str(settings))
    assert ("scale" in arguments) == (kind == "blip" and "ViTFeatureExtractor" in str(settings))


@pytest.mark.parametrize(
    "settings",
    [
        {"image_mean": [0.1, 0.2, 0.3], "image_std": [0.5, 0.6, 0.7]},
        {"image_mean": 0.4, "image_std": 0.3, "rescale_factor": 1 / 127.5},
        {"do_normalize": False},
        {"do_rescale": False},
        {"do_rescale": False, "do_normalize": False},
    ],
)
def test_pixels_are_rescaled_and_normalized_as_recorded(settings, tmp_path):
    arguments, _ = read(tmp_path, "vit", {"size": SIDE, **settings})
    pixels = np.random.default_rng(0).uniform(0, 255, (4, 4, 3))
    expected = pixels
    if settings.get("do_rescale", True):
        expected = expected * settings.get("rescale_factor", 1 / 255)
    if settings.get("do_normalize", True):
        mean, stddev = settings.get("image_mean", 0.5), settings.get("image_std", 0.5)
        expected = (expected - mean) / np.asarray(stddev)
    received = pixels * arguments["scale"] + arguments["offset"]
    np.testing.assert_allclose(received, expected, atol=1e-9)


def test_a_photo_is_squashed_to_the_size_as_by_pillow(tmp_path):
    photo = np.random.default_rng(0).integers(0, 256, (70, 130, 3), np.uint8)
    arguments, _ = read(tmp_path, "vit", {"size": SIDE})
    expected = Image.fromarray(photo).resize((SIDE, SIDE), Image.Resampling.BILINEAR)
    received = load_photo(photo, (SIDE, SIDE), resample=arguments["resample"])
    np.testing.assert_array_equal(received, expected)


def test_newer_versions_record_it_in_another_file(tmp_path):
    section = {"image_processor_type": "BlipImageProcessor", "size": SIDE, "resample": 2}
    arguments, _ = read(tmp_path, "blip", {"image_processor": section}, "processor_config.json")
    assert arguments == {"resample": "bilinear"}


def test_the_usual_preprocessing_is_assumed_without_a_record(tmp_path):
    arguments, (note,) = read_image_processor(tmp_path, BLIP_PROCESSOR, (384, 384))
    assert arguments == {"resample": "bicubic"}
    assert "assumed the preprocessing of BlipImageProcessor" in note


@pytest.mark.parametrize(
    "kind, settings, message",
    [
        ("vit", {"size": 384}, "photos of the size .*48x48.*Received: size=384"),
        ("blip", {}, "48x48.*Received: size=384"),
        ("vit", {"size": {"longest_edge": SIDE}}, "longest_edge"),
        ("vit", {"size": SIDE, "do_resize": False}, "do_resize=false"),
        ("vit", {"size": SIDE, "do_center_crop": True}, "do_center_crop=true"),
        ("vit", {"size": SIDE, "do_pad": True}, "do_pad=true"),
        ("vit", {"size": SIDE, "resample": 7}, "from 0 to 5.*resample=7"),
        ("vit", {"size": SIDE, "image_mean": [0.5]}, r"image_mean .*image_mean=\[0.5\]"),
        ("vit", {"size": SIDE, "image_std": [0.5, 0, 1]}, "image_std"),
        ("vit", {"size": SIDE, "rescale_factor": "1"}, "rescale_factor='1'"),
        ("vit", {"size": SIDE, "image_processor_type": "CLIPImageProcessor"}, "'CLIPImage"),
        ("vit", [], "JSON object"),
    ],
)
def test_what_cannot_be_represented_is_refused_by_name(kind, settings, message, tmp_path):
    with pytest.raises(ValueError, match=message):
        read(tmp_path, kind, settings)
