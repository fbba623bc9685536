"""Tests of the image decoders of shards: Pillow and NVIDIA DALI."""

from __future__ import annotations

import io
import sys
import threading

import numpy as np
import pytest
from PIL import Image

from effcap.trainers.data.augmentation import Augmentation, View
from effcap.trainers.data.shards.decoder_choice import make_image_decoder
from effcap.trainers.data.shards.image_decoder import PillowDecoder, fill_missing

SIZE = (48, 64)
FITS = ("squash", "crop", "pad")


def photo(width: int, height: int, seed: int = 0) -> Image.Image:
    """Returns smooth blobs of color, which all decoders and resizers treat alike."""
    rng = np.random.default_rng(seed)
    small = rng.integers(0, 256, (5, 6, 3), dtype=np.uint8)
    return Image.fromarray(small).resize((width, height), Image.Resampling.BICUBIC)


def encode(image: Image.Image, format: str = "JPEG", **options) -> bytes:
    file = io.BytesIO()
    image.save(file, format, **options)
    return file.getvalue()


def rotated(orientation: int) -> bytes:
    exif = Image.Exif()
    exif[0x0112] = orientation
    return encode(photo(90, 70), exif=exif)


SHAPES = [
    encode(photo(*size, i)) for i, size in enumerate([(200, 150), (97, 211), (64, 48), (31, 30)])
]
KINDS = [
    *(rotated(orientation) for orientation in range(1, 9)),
    encode(photo(80, 60).convert("L")),
    encode(photo(80, 60), progressive=True),
    encode(photo(80, 60), "PNG"),
    encode(photo(80, 60).convert("RGBA"), "WEBP"),
]
BAD = [b"", b"text, not an image", SHAPES[0][: len(SHAPES[0]) // 2], SHAPES[1][:20]]


@pytest.fixture
def dali():
    pytest.importorskip("nvidia.dali")
    return lambda fit="squash", batch_size=16, resample=None: make_image_decoder(
        "dali-cpu", SIZE, fit, batch_size, 1, resample
    )


def decode(decoder, photos, augmentation: Augmentation | None = None, flip: bool = False):
    views = [View() if augmentation is None else augmentation.view(i) for i in range(len(photos))]
    images, failures = decoder.decode(photos, views, np.full(len(photos), flip))
    images = np.asarray(images)
    assert images.shape == (len(photos), *SIZE, 3) and images.dtype == np.uint8
    return images, failures


@pytest.mark.parametrize("fit", FITS)
@pytest.mark.parametrize(
    "augmentation",
    [None, Augmentation(random_crop=0.4), Augmentation(random_crop=0.4, color_jitter=0.5)],
)
@pytest.mark.parametrize("flip", [False, True])
def test_dali_and_pillow_decode_the_same_images(dali, fit, augmentation, flip):
    photos = [*SHAPES, *KINDS]
    images, failures = decode(dali(fit), photos, augmentation, flip)
    expected, _ = decode(PillowDecoder(SIZE, fit), photos, augmentation, flip)
    assert not failures
    difference = np.abs(images.astype(int) - expected.astype(int)).mean(axis=(1, 2, 3))
    assert difference.max() < 1.0, difference


@pytest.mark.parametrize("resample", ["bilinear", "lanczos"])
def test_dali_and_pillow_have_the_same_filters(dali, resample):
    photos = [*SHAPES, *KINDS]
    images, _ = decode(dali(resample=resample), photos)
    expected, _ = decode(PillowDecoder(SIZE, resample=resample), photos)
    difference = np.abs(images.astype(int) - expected.astype(int)).mean(axis=(1, 2, 3))
    assert difference.max() < 1.0, difference


def test_dali_does_not_have_every_filter(dali):
    with pytest.raises(ValueError, match="bilinear, bicubic, lanczos.*resample='hamming'"):
        dali(resample="hamming")


@pytest.mark.parametrize("bad", BAD, ids=["empty", "text", "half", "header"])
@pytest.mark.parametrize("name", ["pillow", "dali-cpu"])
def test_an_undecodable_photo_does_not_affect_the_others(bad, name):
    if name != "pillow":
        pytest.importorskip("nvidia.dali")
    decoder = make_image_decoder(name, SIZE, "squash", 8, 1)
    expected, no_failures = decode(decoder, SHAPES)
    assert no_failures == {}
    images, failures = decode(decoder, [SHAPES[0], bad, *SHAPES[1:], None])
    assert list(failures) == [1] and failures[1]
    np.testing.assert_array_equal(images[[0, 2, 3, 4]], expected)
    assert not images[[1, 5]].any()
    np.testing.assert_array_equal(decode(decoder, SHAPES)[0], expected)  # also afterwards


def test_later_batches_do_not_overwrite_images_of_dali(dali):
    decoder = dali()
    first, _ = decode(decoder, SHAPES)
    kept = first.copy()
    for _ in range(5):
        decode(decoder, SHAPES[::-1])
    np.testing.assert_array_equal(first, kept)


def test_images_of_dali_are_not_copied(dali):
    images, _ = dali().decode(SHAPES, [View()] * 4, np.zeros(4, bool))
    assert not images.flags.owndata


def test_dali_can_be_called_from_several_threads(dali):
    decoder = dali()
    expected = [decode(decoder, SHAPES[i:])[0] for i in range(4)]
    wrong = []

    def repeat(i: int) -> None:
        for _ in range(10):
            if not np.array_equal(decode(decoder, SHAPES[i:])[0], expected[i]):
                wrong.append(i)

    threads = [threading.Thread(target=repeat, args=(i,)) for i in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong


def test_without_dali_pillow_is_selected(monkeypatch):
    monkeypatch.setattr("effcap.trainers.data.shards.dali.has_dali", lambda: False)
    assert make_image_decoder(None, SIZE, "squash", 4, 1).name == "pillow"
    with pytest.raises(ImportError, match="requires NVIDIA DALI.*effcap\\[dali\\]"):
        make_image_decoder("dali", SIZE, "squash", 4, 1)


def test_without_a_gpu_pillow_is_selected_by_default(dali, monkeypatch):
    monkeypatch.setattr("effcap.trainers.data.shards.dali.has_dali_gpu", lambda: False)
    assert make_image_decoder(None, SIZE, "squash", 4, 1).name == "pillow"
    assert make_image_decoder("dali", SIZE, "squash", 4, 1).name == "dali-cpu"
    with pytest.raises(ValueError, match="requires a GPU"):
        make_image_decoder("dali-gpu", SIZE, "squash", 4, 1)


def test_has_dali_does_not_import_dali():
    from effcap.trainers.data.shards.dali import has_dali

    before = set(sys.modules)
    has_dali()
    assert not any(name.startswith("nvidia.dali.") for name in set(sys.modules) - before)


def test_missing_images_are_filled_within_their_process():
    images = np.arange(6, dtype=np.uint8).reshape(6, 1, 1, 1)  # (B, h, w, 1)
    is_real = np.array([False, True, True, False, False, False])  # (B,)
    fill_missing(images, is_real, rows_per_process=3)
    assert images.ravel().tolist() == [1, 1, 2, 3, 4, 5]
