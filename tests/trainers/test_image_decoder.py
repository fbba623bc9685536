"""DALI and Pillow see the same photos, and neither stops at one that cannot be decoded."""

from __future__ import annotations

import io
import sys
import threading

import numpy as np
import pytest
from PIL import Image

from effcap.trainers.data.augmentation import Augmentation, View
from effcap.trainers.data.shards.image_decoder import PillowDecoder, make_decoder

SIZE = (48, 64)
FITS = ("squash", "crop", "pad")


def photo(width: int, height: int, seed: int = 0) -> Image.Image:
    """Smooth blobs of colour: JPEG and resizing treat them alike everywhere."""
    rng = np.random.default_rng(seed)
    small = rng.integers(0, 256, (5, 6, 3), dtype=np.uint8)
    return Image.fromarray(small).resize((width, height), Image.Resampling.BICUBIC)


def encode(image: Image.Image, format: str = "JPEG", **options) -> bytes:
    file = io.BytesIO()
    image.save(file, format, **options)
    return file.getvalue()


def turned(orientation: int) -> bytes:
    exif = Image.Exif()
    exif[0x0112] = orientation
    return encode(photo(90, 70), exif=exif)


SHAPES = [
    encode(photo(*size, i)) for i, size in enumerate([(200, 150), (97, 211), (64, 48), (31, 30)])
]
KINDS = [
    *(turned(orientation) for orientation in range(1, 9)),
    encode(photo(80, 60).convert("L")),
    encode(photo(80, 60), progressive=True),
    encode(photo(80, 60), "PNG"),
    encode(photo(80, 60).convert("RGBA"), "WEBP"),
]
BAD = [b"", b"text, not an image", SHAPES[0][: len(SHAPES[0]) // 2], SHAPES[1][:20]]


@pytest.fixture
def dali():
    pytest.importorskip("nvidia.dali")
    return lambda fit="squash", batch_size=16: make_decoder("dali-cpu", SIZE, fit, batch_size, 1)


def decode(decoder, photos, augmentation: Augmentation | None = None, mirror: bool = False):
    views = [View() if augmentation is None else augmentation.view(i) for i in range(len(photos))]
    images, failures = decoder.decode(photos, views, np.full(len(photos), mirror))
    images = np.asarray(images)
    assert images.shape == (len(photos), *SIZE, 3) and images.dtype == np.uint8
    return images, failures


@pytest.mark.parametrize("fit", FITS)
@pytest.mark.parametrize(
    "augmentation", [None, Augmentation(crop=0.4), Augmentation(crop=0.4, colour=0.5)]
)
@pytest.mark.parametrize("mirror", [False, True])
def test_dali_sees_what_pillow_sees(dali, fit, augmentation, mirror):
    photos = [*SHAPES, *KINDS]
    found, failures = decode(dali(fit), photos, augmentation, mirror)
    expected, _ = decode(PillowDecoder(SIZE, fit), photos, augmentation, mirror)
    assert not failures
    difference = np.abs(found.astype(int) - expected.astype(int)).mean(axis=(1, 2, 3))
    assert difference.max() < 1.0, difference


@pytest.mark.parametrize("bad", BAD, ids=["empty", "text", "half", "header"])
@pytest.mark.parametrize("name", ["pillow", "dali-cpu"])
def test_a_photo_that_cannot_be_decoded_costs_itself_alone(bad, name):
    if name != "pillow":
        pytest.importorskip("nvidia.dali")
    decoder = make_decoder(name, SIZE, "squash", 8, 1)
    whole, none = decode(decoder, SHAPES)
    assert none == {}
    found, failures = decode(decoder, [SHAPES[0], bad, *SHAPES[1:], None])
    assert list(failures) == [1] and failures[1]
    np.testing.assert_array_equal(found[[0, 2, 3, 4]], whole)
    assert not found[[1, 5]].any()
    np.testing.assert_array_equal(decode(decoder, SHAPES)[0], whole)  # and goes on


def test_images_of_dali_are_not_overwritten_by_later_batches(dali):
    decoder = dali()
    first, _ = decode(decoder, SHAPES)
    kept = first.copy()
    for _ in range(5):
        decode(decoder, SHAPES[::-1])
    np.testing.assert_array_equal(first, kept)


def test_images_of_dali_are_not_copied(dali):
    images, _ = dali().decode(SHAPES, [View()] * 4, np.zeros(4, bool))
    assert not images.flags.owndata


def test_dali_may_be_called_from_several_threads(dali):
    decoder = dali()
    wanted = [decode(decoder, SHAPES[i:])[0] for i in range(4)]
    wrong = []

    def work(i: int) -> None:
        for _ in range(10):
            if not np.array_equal(decode(decoder, SHAPES[i:])[0], wanted[i]):
                wrong.append(i)

    threads = [threading.Thread(target=work, args=(i,)) for i in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong


def test_without_dali_pillow_decodes(monkeypatch):
    monkeypatch.setattr("effcap.trainers.data.shards.dali.dali_is_there", lambda: False)
    assert make_decoder(None, SIZE, "squash", 4, 1).name == "pillow"
    with pytest.raises(ValueError, match="Expected NVIDIA DALI.*effcap\\[dali\\]"):
        make_decoder("dali", SIZE, "squash", 4, 1)


def test_without_a_gpu_pillow_decodes_unless_dali_is_asked_for(dali, monkeypatch):
    monkeypatch.setattr("effcap.trainers.data.shards.dali.dali_sees_a_gpu", lambda: False)
    assert make_decoder(None, SIZE, "squash", 4, 1).name == "pillow"
    assert make_decoder("dali", SIZE, "squash", 4, 1).name == "dali-cpu"
    with pytest.raises(ValueError, match="Expected a GPU"):
        make_decoder("dali-gpu", SIZE, "squash", 4, 1)


def test_looking_for_dali_does_not_import_it():
    from effcap.trainers.data.shards.dali import dali_is_there

    before = set(sys.modules)
    dali_is_there()
    assert not any(name.startswith("nvidia.dali.") for name in set(sys.modules) - before)
