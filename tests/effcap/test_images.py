"""Photos come in as the model should see them, or with the reason why they cannot."""

from __future__ import annotations

import io
import os
import pickle
import re
import subprocess
import sys
import threading
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageCms, ImageFile, ImageOps

from effcap import images as photos
from effcap.images import UnreadablePhoto, load_photo, load_photos, load_thumbnail

REPOSITORY = Path(__file__).resolve().parents[2]
SHARED = Path(os.environ.get("EFFCAP_SHARED", REPOSITORY.parent / "shared"))
needs_samples = pytest.mark.skipif(
    not (SHARED / "samples" / "images").is_dir(), reason="the sample photos are not here"
)


def scene(width: int = 320, height: int = 240) -> Image.Image:
    """A smooth picture whose four corners differ: red, green, blue and white."""
    corners = np.array([[[255, 0, 0], [0, 255, 0]], [[0, 0, 255], [255, 255, 255]]], np.uint8)
    return Image.fromarray(corners).resize((width, height), Image.Resampling.BILINEAR)


def encoded(image: Image.Image, file_format: str, **options) -> bytes:
    file = io.BytesIO()
    image.save(file, file_format, **options)
    return file.getvalue()


def exif_with_orientation(orientation: int = 6) -> Image.Exif:
    exif = Image.Exif()
    exif[0x0112] = orientation
    return exif


def difference(a, b) -> float:
    return float(np.abs(np.asarray(a, np.float32) - np.asarray(b, np.float32)).mean())


def reference(image: Image.Image, height: int, width: int) -> np.ndarray:
    return np.asarray(image.convert("RGB").resize((width, height), Image.Resampling.BICUBIC))


# What may be given


@pytest.mark.parametrize("kind", ["str", "path", "bytes", "bytearray", "file", "pillow", "array"])
def test_every_kind_of_input_gives_the_same_pixels(tmp_path, kind):
    image = scene()
    data = encoded(image, "PNG")
    path = tmp_path / "scene.png"
    path.write_bytes(data)
    given = {
        "str": str(path), "path": path, "bytes": data, "bytearray": bytearray(data),
        "file": io.BytesIO(data), "pillow": image, "array": np.asarray(image),
    }[kind]  # fmt: skip
    loaded = load_photo(given, (100, 120))
    assert loaded.shape == (100, 120, 3) and loaded.dtype == np.uint8
    assert loaded.flags.writeable and loaded.flags.c_contiguous
    assert difference(loaded, reference(image, 100, 120)) < 0.5


@pytest.mark.parametrize(
    ("file_format", "options"),
    [("JPEG", {"quality": 95}), ("JPEG", {"quality": 95, "progressive": True}), ("PNG", {}),
     ("WEBP", {"quality": 95}), ("WEBP", {"lossless": True}), ("BMP", {}), ("TIFF", {}),
     ("TIFF", {"compression": "tiff_lzw"}), ("PPM", {})],
)  # fmt: skip
def test_file_formats_keep_their_colours(file_format, options):
    loaded = load_photo(encoded(scene(), file_format, **options), (60, 80))
    assert difference(loaded, reference(scene(), 60, 80)) < 3


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
def test_float_arrays_count_from_0_to_255(dtype):
    array = np.asarray(scene()).astype(dtype)
    assert np.array_equal(load_photo(array, (50, 50)), load_photo(np.asarray(scene()), (50, 50)))


def test_float_arrays_that_end_at_one_are_refused_not_turned_black():
    with pytest.raises(UnreadablePhoto, match="multiply them by 255"):
        load_photo(np.asarray(scene()) / 255.0, (50, 50))
    assert load_photo(np.zeros((5, 5, 3)), (4, 4)).max() == 0  # black is black in both readings


@pytest.mark.parametrize("shape", [(40, 30), (40, 30, 1)])
def test_grey_arrays_become_three_equal_channels(shape):
    array = np.random.default_rng(0).integers(0, 256, shape, np.uint8)
    loaded = load_photo(array, shape[:2])
    assert np.array_equal(loaded, np.repeat(array.reshape(40, 30, 1), 3, axis=2))


def test_transparent_arrays_are_laid_on_white():
    array = np.zeros((8, 8, 4), np.uint8)
    array[:, 4:, 3] = 255
    loaded = load_photo(array, (8, 8))
    assert (loaded[:, :4] == 255).all() and (loaded[:, 4:] == 0).all()


@pytest.mark.parametrize(
    "array",
    [np.zeros((3, 40, 30), np.uint8), np.zeros((1, 40, 30, 3), np.uint8), np.zeros(9, np.uint8),
     np.zeros((4, 4, 2), np.uint8), np.zeros((0, 4, 3), np.uint8), np.zeros((4, 4, 3), np.int32),
     np.zeros((4, 4, 3), bool), np.full((4, 4, 3), np.nan), np.full((4, 4, 3), 256.0),
     np.full((4, 4, 3), -1.0), np.zeros((4, 4, 3), np.uint16), np.array(["a"])],
)  # fmt: skip
def test_arrays_of_wrong_shape_type_or_range_say_what_was_received(array):
    with pytest.raises(UnreadablePhoto, match="Received: "):
        load_photo(array, (10, 10))


@pytest.mark.parametrize("given", [None, 3, ["a.jpg"], io.StringIO("text")])
def test_what_is_no_photo_at_all_is_refused(given):
    with pytest.raises(UnreadablePhoto, match="expected a path"):
        load_photo(given, (10, 10))


@pytest.mark.parametrize("size", [(0, 5), (5,), 224, (5, 5, 3), (2.5, 4), ("a", "b"), None])
def test_wrong_image_size_is_named(size):
    with pytest.raises(ValueError, match="Received: image_size="):
        load_photo(scene(), size)


def test_wrong_fit_is_named():
    with pytest.raises(ValueError, match="Received: fit='stretch'"):
        load_photo(scene(), (5, 5), fit="stretch")


# Colours


def test_cmyk_jpeg_keeps_its_colours():
    data = encoded(scene().convert("CMYK"), "JPEG", quality=95)
    assert Image.open(io.BytesIO(data)).mode == "CMYK"
    assert difference(load_photo(data, (60, 80)), reference(scene(), 60, 80)) < 4


@pytest.mark.parametrize("file_format", ["PNG", "TIFF", "PPM"])
def test_sixteen_bits_are_scaled_not_clipped(file_format):
    ramp = np.tile(np.linspace(0, 65535, 256).round().astype(np.uint16), (256, 1))
    loaded = load_photo(encoded(Image.fromarray(ramp), file_format), (256, 256))
    assert np.array_equal(loaded[:, :, 0], np.tile(np.arange(256, dtype=np.uint8), (256, 1)))


@pytest.mark.parametrize("mode", ["1", "L", "P", "LA", "RGBA", "YCbCr", "HSV", "LAB", "I", "F"])
def test_every_pillow_mode_gives_three_channels(mode):
    source = scene().convert("L") if mode in ("I", "F") else scene()
    if mode == "LAB":
        profiles = ImageCms.createProfile("sRGB"), ImageCms.createProfile("LAB")
        image = ImageCms.profileToProfile(source, *profiles, outputMode="LAB")
    elif mode == "I":
        image = Image.fromarray(np.asarray(source).astype(np.int32) * 257)
    else:
        image = source.convert(mode)
    loaded = load_photo(image, (60, 80))
    expected = source.convert("L") if mode in ("1", "L", "LA", "I", "F") else source
    assert difference(loaded, reference(expected, 60, 80)) < (30 if mode in ("1", "P") else 4)


def test_transparency_is_laid_on_white_before_resizing():
    image = Image.new("RGBA", (64, 64), (0, 0, 0, 0))
    image.paste((200, 30, 40, 255), (0, 0, 32, 64))
    for file_format in ("PNG", "WEBP"):
        options = {"lossless": True} if file_format == "WEBP" else {}
        loaded = load_photo(encoded(image, file_format, **options), (16, 16))
        assert (loaded[:, 10:] == 255).all()
        assert (loaded[:, :6] == [200, 30, 40]).all()


def test_transparent_palette_entry_is_white():
    image = Image.new("P", (8, 8), 0)
    image.putpalette([0, 0, 0, 10, 200, 30])
    image.paste(1, (0, 0, 4, 8))
    for file_format in ("PNG", "GIF"):
        loaded = load_photo(encoded(image, file_format, transparency=0), (8, 8))
        assert (loaded[:, 4:] == 255).all() and (loaded[:, :4] == [10, 200, 30]).all()


def test_transparent_value_of_a_16_bit_png_is_white():
    grey = np.full((4, 6), 30000, np.uint16)
    grey[0] = 7
    loaded = load_photo(encoded(Image.fromarray(grey), "PNG", transparency=7), (4, 6))
    assert (loaded[0] == 255).all() and (loaded[1:] == 117).all()


def test_transparent_colour_of_an_rgb_png_is_white():
    image = Image.new("RGB", (8, 8), (1, 2, 3))
    image.paste((9, 9, 200), (0, 0, 4, 8))
    loaded = load_photo(encoded(image, "PNG", transparency=(1, 2, 3)), (8, 8))
    assert (loaded[:, 4:] == 255).all() and (loaded[:, :4] == [9, 9, 200]).all()


def test_animation_gives_its_first_frame():
    frames = [Image.new("RGB", (8, 8), colour) for colour in ("red", "blue")]
    for file_format in ("GIF", "WEBP", "PNG"):
        data = encoded(frames[0], file_format, save_all=True, append_images=frames[1:])
        assert difference(load_photo(data, (4, 4)), [255, 0, 0]) < 3


# Shape


@pytest.mark.parametrize("fit", ["squash", "crop", "pad"])
@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("file_format", ["JPEG", "PNG", "TIFF"])
def test_exif_orientation_is_undone_whatever_the_fit(fit, orientation, file_format):
    exif = exif_with_orientation(orientation)
    data = encoded(scene(600, 400), file_format, exif=exif)
    upright = ImageOps.exif_transpose(Image.open(io.BytesIO(data))).convert("RGB")
    loaded = load_photo(data, (90, 120), fit)
    assert loaded.shape == (90, 120, 3)
    assert difference(loaded, load_photo(np.asarray(upright), (90, 120), fit)) < 1


@pytest.mark.filterwarnings("ignore:Corrupt EXIF")
def test_damaged_exif_does_not_cost_the_photo():
    data = encoded(scene(), "JPEG", exif=b"Exif\x00\x00II*\x00\xff\xff\xff\xff garbage")
    assert load_photo(data, (10, 10)).shape == (10, 10, 3)


def test_crop_keeps_the_middle_and_the_proportions():
    array = np.zeros((100, 300, 3), np.uint8)
    array[:, 100:200] = 255
    for photo in (array, array.transpose(1, 0, 2)):
        loaded = load_photo(photo, (50, 50), "crop")
        assert loaded[1:-1, 1:-1].min() == 255  # the filter looks past the cut by a pixel
        assert loaded.min() > 200


def test_pad_keeps_the_whole_photo_between_black_bars():
    array = np.full((100, 200, 3), 255, np.uint8)
    loaded = load_photo(array, (80, 80), "pad")
    assert (loaded[:20] == 0).all() and (loaded[20:60] == 255).all() and (loaded[60:] == 0).all()


@pytest.mark.parametrize("fit", ["squash", "crop", "pad"])
@pytest.mark.parametrize("shape", [(1, 1), (1, 3000), (3000, 1), (2, 7)])
def test_extreme_shapes_come_out_at_the_right_size(fit, shape):
    loaded = load_photo(np.full((*shape, 3), 9, np.uint8), (33, 21), fit)
    assert loaded.shape == (33, 21, 3) and loaded.max() == 9


@pytest.mark.parametrize(
    ("size", "expected"), [((600, 400), (90, 60)), ((400, 900), (27, 60)), ((30, 20), (30, 20))]
)
def test_thumbnail_keeps_the_shape_and_is_never_enlarged(size, expected):
    assert load_thumbnail(scene(*size), (60, 90)).size == expected
    assert load_thumbnail(encoded(scene(*size), "JPEG"), (60, 90)).size == expected


def test_thumbnail_is_turned_upright():
    exif = exif_with_orientation()
    assert load_thumbnail(encoded(scene(600, 400), "JPEG", exif=exif), (90, 90)).size == (60, 90)


# Parts


@pytest.mark.parametrize("fit", ["squash", "crop", "pad"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_a_region_is_read_as_if_it_were_the_whole_photo(fit, orientation):
    exif = exif_with_orientation(orientation)
    data = encoded(scene(800, 600), "JPEG", exif=exif, quality=95)
    upright = ImageOps.exif_transpose(Image.open(io.BytesIO(data)))
    region = (0.1, 0.25, 0.6, 0.95)
    part = upright.crop([round(r * side) for r, side in zip(region, 2 * upright.size, strict=True)])
    read = photos.read_photo(data, (45, 60), fit, region)
    assert read.size == (60, 45) and read.mode == "RGB"
    assert difference(read, load_photo(part, (45, 60), fit)) < 1.5


def test_a_small_region_is_decoded_in_full_detail():
    noise = np.random.default_rng(0).integers(0, 256, (60, 80, 3), np.uint8)
    image = Image.fromarray(noise).resize((2400, 1800), Image.Resampling.BICUBIC)
    data = encoded(image, "JPEG", quality=95)
    part = image.crop((1200, 900, 1440, 1080))
    read = photos.read_photo(data, (90, 120), region=(0.5, 0.5, 0.6, 0.6))
    assert difference(read, reference(part, 90, 120)) < 2


@pytest.mark.parametrize("region", [(0, 0, 1, 1.1), (0.5, 0, 0.5, 1), (0, 0.9, 1, 0.1)])
def test_wrong_region_is_named(region):
    with pytest.raises(ValueError, match=re.escape(f"Received: region={region}")):
        photos.read_photo(scene(), (10, 10), region=region)


# Fast decoding


@pytest.mark.parametrize("fit", ["squash", "crop", "pad"])
@pytest.mark.parametrize("size", [(224, 224), (120, 300)])
def test_drafted_jpeg_stays_close_to_the_full_decode(fit, size):
    noise = np.random.default_rng(0).integers(0, 256, (60, 80, 3), np.uint8)
    image = Image.fromarray(noise).resize((2400, 1800), Image.Resampling.BICUBIC)
    data = encoded(image, "JPEG", quality=95)
    full = load_photo(np.asarray(Image.open(io.BytesIO(data))), size, fit)
    drafted = load_photo(data, size, fit)
    assert difference(drafted, full) < 1.0
    assert not np.array_equal(drafted, full)  # else nothing was drafted


@needs_samples
def test_real_photos_stay_close_to_pillows_own_resizing():
    for path in sorted((SHARED / "samples" / "images").iterdir()):
        with Image.open(path) as image:
            expected = reference(image, 96, 96)
        assert difference(load_photo(path, (96, 96)), expected) < 1.5, path.name


def test_callers_own_jpeg_is_not_shrunk():
    image = Image.open(io.BytesIO(encoded(scene(1600, 1200), "JPEG")))
    load_photo(image, (32, 32))
    assert image.size == (1600, 1200)
    assert difference(image, scene(1600, 1200)) < 3


# What cannot be read


def test_names_with_spaces_unicode_and_newlines_are_read(tmp_path):
    for name in ("my photo.jpg", "é東\U0001f431.jpg", "two\nlines.jpg"):
        scene().save(tmp_path / name)
        assert load_photo(tmp_path / name, (10, 10)).shape == (10, 10, 3)


def test_missing_file_is_named(tmp_path):
    with pytest.raises(UnreadablePhoto, match="no such file") as error:
        load_photo(tmp_path / "gone.jpg", (10, 10))
    assert "gone.jpg" in str(error.value) and "gone.jpg" in error.value.photo
    assert isinstance(error.value, ValueError)
    with pytest.raises(UnreadablePhoto, match="addresses are not fetched"):
        load_photo("https://example.org/a.jpg", (10, 10))


def test_folder_empty_file_and_text_file_are_told_apart(tmp_path):
    (tmp_path / "empty.jpg").touch()
    (tmp_path / "page.jpg").write_text("<!DOCTYPE html><title>404</title>")
    for name, reason in (("", "is a folder"), ("empty.jpg", "0 bytes"), ("page.jpg", "<!DOCTY")):
        with pytest.raises(UnreadablePhoto, match=reason):
            load_photo(tmp_path / name, (10, 10))


@pytest.mark.parametrize(
    ("file_format", "options"),
    [("JPEG", {}), ("JPEG", {"progressive": True}), ("PNG", {}), ("GIF", {}), ("BMP", {}),
     ("WEBP", {}), ("TIFF", {})],
)  # fmt: skip
@pytest.mark.parametrize("kept", [0.3, 0.9])
def test_truncated_file_is_an_error_never_half_grey(file_format, options, kept):
    noise = Image.fromarray(np.random.default_rng(0).integers(0, 256, (200, 200, 3), np.uint8))
    data = encoded(noise, file_format, **options)
    with pytest.raises(UnreadablePhoto):
        load_photo(data[: int(len(data) * kept)], (64, 64))


def test_setting_that_hides_truncation_is_refused(monkeypatch):
    monkeypatch.setattr(ImageFile, "LOAD_TRUNCATED_IMAGES", True)
    with pytest.raises(RuntimeError, match="LOAD_TRUNCATED_IMAGES = False"):
        load_photo(scene(), (10, 10))


def test_pixel_bomb_is_an_unreadable_photo(monkeypatch):
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 1000)
    with pytest.raises(UnreadablePhoto, match="more pixels than"):
        load_photo(encoded(scene(), "PNG"), (10, 10))


def test_error_survives_pickling_as_between_processes():
    error = pickle.loads(pickle.dumps(UnreadablePhoto("photo 'a.jpg'", "it is empty")))
    assert str(error) == "Cannot read photo 'a.jpg': it is empty"
    assert (error.photo, error.reason) == ("photo 'a.jpg'", "it is empty")


def test_pipes_devices_and_huge_files_are_refused_unread(tmp_path):
    os.mkfifo(tmp_path / "pipe.jpg")  # reading it would wait for ever
    with (tmp_path / "huge.jpg").open("wb") as file:
        file.truncate(2**40)  # takes no room
    for path, reason in (
        (tmp_path / "pipe.jpg", "a pipe or device"),
        ("/dev/zero", "a pipe or device"),
        (tmp_path / "huge.jpg", "at most 1024 MB. Received: 1048576 MB"),
    ):
        with pytest.raises(UnreadablePhoto, match=reason):
            load_photo(path, (10, 10))


def test_circle_of_links_and_impossible_names_are_unreadable_photos(tmp_path):
    (tmp_path / "a.jpg").symlink_to(tmp_path / "b.jpg")
    (tmp_path / "b.jpg").symlink_to(tmp_path / "a.jpg")
    for path in (tmp_path / "a.jpg", tmp_path / ("x" * 5000), "nul\0.jpg", "half\ud800.jpg"):
        with pytest.raises(UnreadablePhoto):
            load_photo(path, (10, 10))


# Many


def test_load_photos_keeps_the_order():
    greys = [np.full((9, 9), value, np.uint8) for value in range(50)]
    batch = load_photos(greys, (4, 6), threads=4)
    assert batch.shape == (50, 4, 6, 3) and batch.dtype == np.uint8
    assert (batch == np.arange(50, dtype=np.uint8).reshape(50, 1, 1, 1)).all()


def test_load_photos_of_nothing_is_an_empty_batch():
    assert load_photos([], (4, 6)).shape == (0, 4, 6, 3)


def test_load_photos_raises_the_first_unreadable_one(tmp_path):
    (tmp_path / "a.jpg").write_bytes(encoded(scene(), "JPEG"))
    paths = [tmp_path / "a.jpg", tmp_path / "first.jpg", tmp_path / "second.jpg"]
    with pytest.raises(UnreadablePhoto, match=r"first\.jpg"):
        load_photos(paths, (8, 8), threads=2)


def test_load_photos_leaves_no_thread_behind():
    before = threading.active_count()
    load_photos([scene()] * 3, (8, 8), threads=3)
    assert threading.active_count() == before


def test_reading_photos_imports_neither_keras_nor_tensorflow():
    program = (
        "import sys, effcap.images; "
        "print([m for m in ('keras', 'tensorflow', 'jax', 'torch') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", program], cwd=REPOSITORY, capture_output=True,
                          text=True, check=True)  # fmt: skip
    assert done.stdout.strip() == "[]"


@pytest.mark.parametrize("fit", ("squash", "crop", "pad"))
def test_what_is_framed_is_what_is_read(fit):
    """A decoder of another make can be told what Pillow would see."""
    region = (0.1, 0.2, 0.9, 0.7)
    box, size = photos.framed((320, 240), (40, 64), fit, region)
    assert box[0] >= 32 and box[1] >= 48 and box[2] <= 288 and box[3] <= 168
    found = photos.read_photo(scene(), (40, 64), fit, region)
    left, top = (64 - size[0]) // 2, (40 - size[1]) // 2
    alone = scene().resize(size, photos.RESAMPLING, box, photos.REDUCING_GAP)
    inside = found.crop((left, top, left + size[0], top + size[1]))
    assert np.abs(np.asarray(inside, int) - np.asarray(alone, int)).max() <= 1


def test_the_size_of_a_photo_that_lies_on_its_side_is_its_upright_one():
    lying = encoded(scene(30, 20), "JPEG", exif=exif_with_orientation(6))
    assert photos.upright_size(lying) == (20, 30)
    with pytest.raises(UnreadablePhoto, match="empty"):
        photos.upright_size(b"")
