"""Tests of the filter that resizes photos."""

from __future__ import annotations

import io
from typing import get_args

import numpy as np
import pytest
from PIL import Image

from effcap.captioner import Captioner
from effcap.images import Resample, load_photo, load_photos
from helpers.captioners import numpy, tiny_hparams


def large_jpeg() -> bytes:
    """Returns a photo that is decoded at a fraction of its size by default."""
    rng = np.random.default_rng(0)
    coarse = Image.fromarray(rng.integers(0, 256, (30, 40, 3), np.uint8))
    file = io.BytesIO()
    coarse.resize((400, 300)).save(file, "JPEG", quality=90)
    return file.getvalue()


@pytest.mark.parametrize("resample", get_args(Resample))
def test_a_filter_gives_the_pixels_of_pillow(resample):
    photo, number = large_jpeg(), Image.Resampling[resample.upper()]
    for size in ((32, 48), (400, 500)):
        expected = np.asarray(Image.open(io.BytesIO(photo)).resize(size[::-1], number))
        np.testing.assert_array_equal(load_photo(photo, size, resample=resample), expected)
        batch = load_photos([photo] * 3, size, resample=resample)
        np.testing.assert_array_equal(batch, [expected] * 3)


@pytest.mark.parametrize("fit", ("crop", "pad"))
def test_filters_differ_for_every_fit(fit):
    photo = large_jpeg()
    pixels = [load_photo(photo, (32, 32), fit, x) for x in (None, "bilinear", "nearest")]
    assert all((pixels[0] != other).any() for other in pixels[1:])


def test_an_unknown_filter_is_an_error():
    with pytest.raises(ValueError, match="'bicubic'.*Received: resample='cubic'"):
        load_photo(large_jpeg(), (32, 32), resample="cubic")


def test_captioners_load_photos_with_their_filter(tokenizer, monkeypatch):
    hparams = tiny_hparams()
    hparams["encoder"]["backbone"]["resample"] = "nearest"
    captioner = Captioner.from_hparams(hparams, tokenizer)
    assert captioner.encoder.resample == "nearest"
    assert Captioner.from_config(captioner.get_config()).encoder.resample == "nearest"
    received = []
    monkeypatch.setattr(
        captioner._generation,
        "generate",
        lambda inputs, *_: received.append(inputs["images"]) or 1 / 0,
    )
    with pytest.raises(ZeroDivisionError):
        captioner.generate(large_jpeg())
    expected = load_photo(large_jpeg(), captioner.encoder.image_size, resample="nearest")
    np.testing.assert_array_equal(numpy(received[0]), expected[None])
