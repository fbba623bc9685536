"""Loading of photos: inputs, colors, sizes, orientation, regions and errors."""

from __future__ import annotations

import io
import os
import pickle
import re
import subprocess
import sys
import threading
from pathlib import Path

import ml_dtypes
import numpy as np
import pytest
from PIL import Image, ImageCms, ImageFile, ImageOps

from effcap.images import (
    UnreadablePhoto,
    load_photo,
    load_photos,
    load_thumbnail,
    read_photo,
    upright_size,
    visible_box,
)
from effcap.images.framing import REDUCING_GAP, RESAMPLING

REPOSITORY = Path(__file__).resolve().parents[2]
SHARED = Path(os.environ.get("EFFCAP_SHARED", REPOSITORY.parent / "shared"))
needs_samples = pytest.mark.skipif(
    not (SHARED / "samples" / "images").is_dir(), reason="requires shared/samples"
)


def scene(width: int = 320, height: int = 240) -> Image.Image:
    """Returns a smooth image with red, green, blue and white corners."""
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


def noise(height: int = 200, width: int = 200) -> Image.Image:
    return Image.fromarray(np.random.default_rng(0).integers(0, 256, (height, width, 3), np.uint8))


def tensor(array: np.ndarray):
    """Returns an array as if of another library."""
    return type("Tensor", (), {"__array__": lambda self, dtype=None, copy=None: array})()


def difference(a, b) -> float:
    return float(np.abs(np.asarray(a, np.float32) - np.asarray(b, np.float32)).mean())


def reference(image: Image.Image, height: int, width: int) -> np.ndarray:
    return np.asarray(image.convert("RGB").resize((width, height), Image.Resampling.BICUBIC))


# Inputs


def test_every_kind_of_input_gives_the_same_pixels(tmp_path):
    image, path = scene(), tmp_path / "scene.png"
    path.write_bytes(data := encoded(image, "PNG"))
    bytes_path = next(os.scandir(os.fsencode(tmp_path)))
    wide = memoryview(data + bytes(len(data) % 2)).cast("H")
    strided = memoryview(np.repeat(np.frombuffer(data, np.uint8), 2))[::2]
    for photo in (
        str(path), np.str_(path), path, bytes_path, data, np.bytes_(data), bytearray(data),
        memoryview(b"--" + data)[2:], wide, strided, io.BytesIO(data), image, np.asarray(image),
        tensor(np.asarray(image)),
    ):  # fmt: skip
        loaded = load_photo(photo, (100, 120))
        assert loaded.shape == (100, 120, 3) and loaded.dtype == np.uint8
        assert loaded.flags.writeable and loaded.flags.c_contiguous
        assert difference(loaded, reference(image, 100, 120)) < 0.5


@pytest.mark.parametrize(
    ("file_format", "options"),
    [("JPEG", {"quality": 95}), ("JPEG", {"quality": 95, "progressive": True}), ("PNG", {}),
     ("WEBP", {"quality": 95}), ("WEBP", {"lossless": True}), ("BMP", {}), ("TIFF", {}),
     ("TIFF", {"compression": "tiff_lzw"}), ("PPM", {})],
)  # fmt: skip
def test_every_file_format_keeps_its_colors(file_format, options):
    loaded = load_photo(encoded(scene(), file_format, **options), (60, 80))
    assert difference(loaded, reference(scene(), 60, 80)) < 3


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64, ml_dtypes.bfloat16])
def test_float_arrays_range_from_0_to_255(dtype):
    array = np.asarray(scene()).astype(dtype)
    assert np.array_equal(load_photo(array, (50, 50)), load_photo(np.asarray(scene()), (50, 50)))
    with pytest.raises(UnreadablePhoto, match="multiply them by 255"):
        load_photo(array / dtype(255), (50, 50))
    assert load_photo(np.zeros((5, 5, 3), dtype), (4, 4)).max() == 0  # black in either range


@pytest.mark.parametrize("shape", [(40, 30), (40, 30, 1)])
def test_gray_arrays_become_three_equal_channels(shape):
    array = np.random.default_rng(0).integers(0, 256, shape, np.uint8)
    loaded = load_photo(array, shape[:2])
    assert np.array_equal(loaded, np.repeat(array.reshape(40, 30, 1), 3, axis=2))


def test_transparent_arrays_are_composited_on_white():
    array = np.zeros((8, 8, 4), np.uint8)
    array[:, 4:, 3] = 255
    loaded = load_photo(array, (8, 8))
    assert (loaded[:, :4] == 255).all() and (loaded[:, 4:] == 0).all()


@pytest.mark.parametrize(
    "array",
    [np.zeros((3, 40, 30), np.uint8), np.zeros((1, 40, 30, 3), np.uint8), np.zeros(9, np.uint8),
     np.zeros((4, 4, 2), np.uint8), np.zeros((0, 4, 3), np.uint8), np.full((4, 4, 3), np.nan),
     np.full((4, 4, 3), 256.0), np.full((4, 4, 3), -1.0), np.full((4, 4, 3), -1)],
)  # fmt: skip
def test_arrays_of_wrong_shape_dtype_or_range_raise(array):
    with pytest.raises(UnreadablePhoto, match="Received: "):
        load_photo(array, (10, 10))


@pytest.mark.parametrize(
    ("photo", "reason"),
    [(None, "expected a path.* NoneType"), (3, "expected a path.* int"), (np.array(3), "a path.*i"),
     (["a.jpg"], "a path.* list"), (io.StringIO("text"), "expected a path.* in text mode"),
     (np.array("a"), r"expected a path.*\.item\(\)"), (np.array(["a"]), r"a path.*\.tolist\(\)"),
     (tensor(np.array(None)), "expected a path.* object"), (tensor("a"), "to a NumPy array: "),
     (np.ones((4, 4), bool), r'astype\("uint8"\) \* 255'), (np.full((4, 4), 256), "/ 257"),
     (np.ones((4, 4, 3), np.int64), r'astype\("uint8"\)\.'), (memoryview(b""), "0 bytes"),
     (memoryview(b"abc")[::2], "b'ac'"), (os.fsencode(__file__), r"os\.fsdecode\(path\)")],
)  # fmt: skip
def test_errors_advise_what_to_pass(photo, reason):
    with pytest.raises(UnreadablePhoto, match=reason):
        load_photo(photo, (10, 10))


@pytest.mark.parametrize("size", [(0, 5), (5,), 224, (5, 5, 3), (2.5, 4), ("a", "b"), None])
def test_errors_name_a_wrong_size_or_fit(size):
    with pytest.raises(ValueError, match="Received: image_size="):
        load_photo(scene(), size)
    with pytest.raises(ValueError, match="Received: fit='stretch'"):
        load_photo(scene(), (5, 5), fit="stretch")


# Colors


def test_cmyk_jpegs_keep_their_colors():
    data = encoded(scene().convert("CMYK"), "JPEG", quality=95)
    assert Image.open(io.BytesIO(data)).mode == "CMYK"
    assert difference(load_photo(data, (60, 80)), reference(scene(), 60, 80)) < 4


@pytest.mark.parametrize("file_format", ["PNG", "TIFF", "PPM"])
def test_sixteen_bits_are_scaled_not_clipped(file_format):
    ramp = np.tile(np.linspace(0, 65535, 256).round().astype(np.uint16), (256, 1))
    loaded = load_photo(encoded(Image.fromarray(ramp), file_format), (256, 256))
    assert np.array_equal(loaded[:, :, 0], np.tile(np.arange(256, dtype=np.uint8), (256, 1)))


@pytest.mark.parametrize("kind", ["I", "I;16B", "PNG", "TIFF", "transparent"])
def test_16_bit_images_with_8_bit_values_raise(kind):
    gray = np.asarray(scene().convert("L"))
    image = Image.fromarray(gray.astype({"I": np.int32, "I;16B": ">u2"}.get(kind, np.uint16)))
    if kind == "transparent":
        image.putpixel((0, 0), 65535)
        image.info["transparency"] = 65535
    with pytest.raises(UnreadablePhoto, match=r'\(np\.asarray\(image\)\.astype\("uint8"\)\)'):
        load_photo(encoded(image, kind) if kind in ("PNG", "TIFF") else image, (9, 9))
    advised = Image.fromarray(np.asarray(image).astype("uint8"))
    assert np.array_equal(load_photo(advised, (240, 320))[:, 1:, 0], gray[:, 1:])
    assert load_photo(Image.new(image.mode, (9, 9)), (9, 9)).max() == 0  # black in either range


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


def test_transparency_is_composited_on_white_before_resizing():
    image = Image.new("RGBA", (64, 64), (0, 0, 0, 0))
    image.paste((200, 30, 40, 255), (0, 0, 32, 64))
    for file_format in ("PNG", "WEBP"):
        options = {"lossless": True} if file_format == "WEBP" else {}
        loaded = load_photo(encoded(image, file_format, **options), (16, 16))
        assert (loaded[:, 10:] == 255).all()
        assert (loaded[:, :6] == [200, 30, 40]).all()


def test_transparent_value_of_a_16_bit_png_becomes_white():
    gray = np.full((4, 6), 30000, np.uint16)
    gray[0] = 7
    loaded = load_photo(encoded(Image.fromarray(gray), "PNG", transparency=7), (4, 6))
    assert (loaded[0] == 255).all() and (loaded[1:] == 117).all()
    image = Image.fromarray(gray)
    image.info["transparency"] = (7, 7, 7)  # as conversion from RGB leaves it
    assert (load_photo(image, (4, 6))[1:] == 117).all()


@pytest.mark.parametrize(("mode", "file_format"), [("P", "PNG"), ("P", "GIF"), ("RGB", "PNG")])
def test_transparent_colors_become_white(mode, file_format):
    image = Image.new("RGB", (8, 8), (1, 2, 3))
    image.paste((10, 200, 30), (0, 0, 4, 8))
    image = image.quantize() if mode == "P" else image
    loaded = load_photo(encoded(image, file_format, transparency=image.getpixel((7, 7))), (8, 8))
    assert (loaded[:, 4:] == 255).all() and (loaded[:, :4] == [10, 200, 30]).all()


def test_animations_are_read_as_their_first_or_current_frame():
    frames = [Image.new("RGB", (8, 8), color) for color in ("red", "blue")]
    for file_format in ("GIF", "WEBP", "PNG"):
        data = encoded(frames[0], file_format, save_all=True, append_images=frames[1:])
        assert difference(load_photo(data, (4, 4)), [255, 0, 0]) < 3
        image = Image.open(io.BytesIO(data))
        image.seek(1)  # the current frame of a Pillow image is read
        assert difference(load_photos([image] * 8, (4, 4)), [0, 0, 255]) < 3 and image.tell() == 1


# Sizes and orientation


@pytest.mark.parametrize("fit", ["squash", "crop", "pad"])
@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("file_format", ["JPEG", "PNG", "TIFF"])
def test_exif_orientation_is_applied_for_every_fit(fit, orientation, file_format):
    exif = exif_with_orientation(orientation)
    data = encoded(scene(600, 400), file_format, exif=exif)
    upright = ImageOps.exif_transpose(Image.open(io.BytesIO(data))).convert("RGB")
    loaded = load_photo(data, (90, 120), fit)
    assert loaded.shape == (90, 120, 3)
    assert difference(loaded, load_photo(np.asarray(upright), (90, 120), fit)) < 1


@pytest.mark.filterwarnings("ignore:Corrupt EXIF")
def test_photos_with_damaged_exif_are_read():
    data = encoded(scene(), "JPEG", exif=b"Exif\x00\x00II*\x00\xff\xff\xff\xff garbage")
    assert load_photo(data, (10, 10)).shape == (10, 10, 3)


def test_crop_keeps_the_center_and_the_aspect_ratio():
    array = np.zeros((100, 300, 3), np.uint8)
    array[:, 100:200] = 255
    for photo in (array, array.transpose(1, 0, 2)):
        loaded = load_photo(photo, (50, 50), "crop")
        assert loaded[1:-1, 1:-1].min() == 255  # the filter reaches one pixel beyond the box
        assert loaded.min() > 200


def test_pad_keeps_the_whole_photo_between_black_bars():
    array = np.full((100, 200, 3), 255, np.uint8)
    loaded = load_photo(array, (80, 80), "pad")
    assert (loaded[:20] == 0).all() and (loaded[20:60] == 255).all() and (loaded[60:] == 0).all()


@pytest.mark.parametrize("fit", ["squash", "crop", "pad"])
@pytest.mark.parametrize("shape", [(1, 1), (1, 3000), (3000, 1), (2, 7)])
def test_extreme_shapes_are_resized_to_the_right_size(fit, shape):
    loaded = load_photo(np.full((*shape, 3), 9, np.uint8), (33, 21), fit)
    assert loaded.shape == (33, 21, 3) and loaded.max() == 9


@pytest.mark.parametrize(
    ("size", "expected"), [((600, 400), (90, 60)), ((400, 900), (27, 60)), ((30, 20), (30, 20))]
)
def test_thumbnails_keep_the_aspect_ratio_and_are_never_enlarged(size, expected):
    assert load_thumbnail(scene(*size), (60, 90)).size == expected
    rotated = encoded(scene(*size[::-1]), "JPEG", exif=exif_with_orientation())
    assert load_thumbnail(rotated, (60, 90)).size == expected


# Regions and drafts


@pytest.mark.parametrize("fit", ["squash", "crop", "pad"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_a_region_is_read_like_a_photo_of_its_own(fit, orientation):
    exif = exif_with_orientation(orientation)
    data = encoded(scene(800, 600), "JPEG", exif=exif, quality=95)
    upright = ImageOps.exif_transpose(Image.open(io.BytesIO(data)))
    region = (0.1, 0.25, 0.6, 0.95)
    cropped = upright.crop(
        [round(r * side) for r, side in zip(region, 2 * upright.size, strict=True)]
    )
    read = read_photo(data, (45, 60), fit, region)
    assert read.size == (60, 45) and read.mode == "RGB"
    assert difference(read, load_photo(cropped, (45, 60), fit)) < 1.5


def test_a_small_region_is_decoded_at_full_resolution():
    image = noise(60, 80).resize((2400, 1800), Image.Resampling.BICUBIC)
    cropped = image.crop((1200, 900, 1440, 1080))
    data = encoded(image, "JPEG", quality=95)
    read = read_photo(data, (90, 120), region=(0.5, 0.5, 0.6, 0.6))
    assert difference(read, reference(cropped, 90, 120)) < 2


@pytest.mark.parametrize("region", [(0, 0, 1, 1.1), (0.5, 0, 0.5, 1), (0, 0.9, 1, 0.1)])
def test_errors_name_a_wrong_region(region):
    with pytest.raises(ValueError, match=re.escape(f"Received: region={region}")):
        read_photo(scene(), (10, 10), region=region)


@pytest.mark.parametrize("fit", ["squash", "crop", "pad"])
@pytest.mark.parametrize("size", [(224, 224), (120, 300)])
def test_drafted_jpegs_are_close_to_fully_decoded_ones(fit, size):
    image = noise(60, 80).resize((2400, 1800), Image.Resampling.BICUBIC)
    data = encoded(image, "JPEG", quality=95)
    full = load_photo(np.asarray(Image.open(io.BytesIO(data))), size, fit)
    drafted = load_photo(data, size, fit)
    assert difference(drafted, full) < 1.0
    assert not np.array_equal(drafted, full)  # otherwise nothing was drafted


@needs_samples
def test_real_photos_are_close_to_pillows_resizing():
    for path in sorted((SHARED / "samples" / "images").iterdir()):
        with Image.open(path) as image:
            expected = reference(image, 96, 96)
        assert difference(load_photo(path, (96, 96)), expected) < 1.5, path.name


def test_the_callers_image_is_not_modified():
    image = Image.open(io.BytesIO(encoded(scene(1600, 1200), "JPEG")))
    load_photo(image, (32, 32))
    assert image.size == (1600, 1200)
    assert difference(image, scene(1600, 1200)) < 3
    palette = scene().convert("P")
    palette.info["transparency"] = 0  # conversion writes it to the palette
    load_photo(palette, (32, 32))
    assert palette.im.getpalettemode() == "RGB"


# Unreadable photos


def test_names_may_have_spaces_unicode_and_newlines(tmp_path):
    for name in ("my photo.jpg", "é東\U0001f431.jpg", "two\nlines.jpg"):
        scene().save(tmp_path / name)
        assert load_photo(tmp_path / name, (10, 10)).shape == (10, 10, 3)


def test_errors_name_missing_files_folders_empty_files_and_text_files(tmp_path):
    (tmp_path / "empty.jpg").touch()
    (tmp_path / "page.jpg").write_text("<!DOCTYPE html><title>404</title>")
    for name, reason in (
        ("gone.jpg", "no such file"), ("http://a.org/a.jpg", "URLs are not downloaded"),
        ("", "is a folder"), ("empty.jpg", "0 bytes"), ("page.jpg", "<!DOCTY"),
    ):  # fmt: skip
        with pytest.raises(UnreadablePhoto, match=reason) as error:
            load_photo(os.path.join(tmp_path, name), (10, 10))
        assert name in str(error.value) and name in error.value.photo


@pytest.mark.parametrize(
    ("file_format", "options"),
    [("JPEG", {}), ("JPEG", {"progressive": True}), ("PNG", {}), ("GIF", {}), ("BMP", {}),
     ("WEBP", {}), ("TIFF", {})],
)  # fmt: skip
@pytest.mark.parametrize("kept", [0.3, 0.9])
def test_truncated_files_raise(file_format, options, kept):
    data = encoded(noise(), file_format, **options)
    with pytest.raises(UnreadablePhoto):
        load_photo(data[: int(len(data) * kept)], (64, 64))


@pytest.mark.parametrize("file_format", ["PNG", "GIF"])
def test_damaged_and_closed_images_raise_each_time(tmp_path, file_format):
    path, data = tmp_path / "a", encoded(noise(), file_format)
    path.write_bytes(data)
    with Image.open(path) as closed, path.open("rb") as file, Image.open(file) as of_closed_file:
        pass
    middle = len(data) // 2
    truncated = Image.open(io.BytesIO(data[:middle]))
    # Pillow raises once for such an image and then returns what it decoded.
    overwritten = Image.open(io.BytesIO(data[:middle] + b"\xff" * 40 + data[middle + 40 :]))
    reasons = ((truncated, "truncated"), (overwritten, "broken"), (closed, "closed"),
               (of_closed_file, "closed"), (file, "closed"))  # fmt: skip
    for photo, reason in 4 * reasons:
        with pytest.raises(UnreadablePhoto, match=reason):
            load_photos([photo] * 4, (9, 9), num_threads=4)


def test_the_pillow_setting_that_hides_truncation_raises(monkeypatch):
    monkeypatch.setattr(ImageFile, "LOAD_TRUNCATED_IMAGES", True)
    with pytest.raises(RuntimeError, match="LOAD_TRUNCATED_IMAGES = False"):
        load_photo(scene(), (10, 10))


def test_decompression_bombs_are_unreadable_photos(monkeypatch):
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 1000)
    with pytest.raises(UnreadablePhoto, match="more pixels than"):
        load_photo(encoded(scene(), "PNG"), (10, 10))


def test_unreadable_photo_can_be_pickled():
    error = pickle.loads(pickle.dumps(UnreadablePhoto("photo 'a.jpg'", "it is empty")))
    assert str(error) == "Cannot read photo 'a.jpg': it is empty" and isinstance(error, ValueError)
    assert (error.photo, error.reason) == ("photo 'a.jpg'", "it is empty")


def test_pipes_devices_huge_files_circular_links_and_impossible_names_raise(tmp_path):
    os.mkfifo(tmp_path / "pipe.jpg")  # reading it would block forever
    with (tmp_path / "huge.jpg").open("wb") as file:
        file.truncate(2**40)  # a sparse file
    (tmp_path / "a.jpg").symlink_to(tmp_path / "b.jpg")
    (tmp_path / "b.jpg").symlink_to(tmp_path / "a.jpg")
    for path, reason in (
        *((path, "a pipe or device") for path in (tmp_path / "pipe.jpg", "/dev/zero")),
        (tmp_path / "huge.jpg", "at most 1024 MB. Received: 1048576 MB"),
        *((path, ".") for path in (tmp_path / "a.jpg", "x" * 5000, "nul\0.jpg", "half\ud800.jpg")),
    ):
        with pytest.raises(UnreadablePhoto, match=reason):
            load_photo(path, (10, 10))


# Batches


def test_load_photos_returns_photos_in_order():
    grays = [np.full((9, 9), value, np.uint8) for value in range(50)]
    batch = load_photos(grays, (4, 6), num_threads=4)
    assert batch.shape == (50, 4, 6, 3) and batch.dtype == np.uint8
    assert (batch == np.arange(50, dtype=np.uint8).reshape(50, 1, 1, 1)).all()
    assert load_photos([], (4, 6)).shape == (0, 4, 6, 3)


def test_load_photos_raises_the_error_of_the_first_unreadable_photo(tmp_path):
    (tmp_path / "a.jpg").write_bytes(encoded(scene(), "JPEG"))
    paths = [tmp_path / "a.jpg", tmp_path / "first.jpg", tmp_path / "second.jpg"]
    with pytest.raises(UnreadablePhoto, match=r"first\.jpg"):
        load_photos(paths, (8, 8), num_threads=2)


@pytest.mark.parametrize("file_format", ["JPEG", "PNG", "TIFF", "WEBP"])
def test_threads_may_share_images_and_files(tmp_path, file_format):
    path = tmp_path / "rotated"
    path.write_bytes(encoded(scene(), file_format, exif=exif_with_orientation()))
    expected, before = load_photo(path, (300, 200)), threading.active_count()
    for _ in range(10):
        with Image.open(path) as image, path.open("rb") as file:
            photos = [image, file, Image.open(file), Image.open(file)] * 3
            assert (load_photos(photos, (300, 200), num_threads=12) == expected).all()
            assert np.array_equal(load_photo(image, (300, 200)), expected)  # usable afterwards
    assert threading.active_count() == before


def test_images_import_no_keras_backend():
    program = (
        "import sys, effcap.images; "
        "print([m for m in ('keras', 'tensorflow', 'jax', 'torch') if m in sys.modules])"
    )
    output = subprocess.check_output([sys.executable, "-c", program], cwd=REPOSITORY, text=True)
    assert output.strip() == "[]"


@pytest.mark.parametrize("fit", ("squash", "crop", "pad"))
def test_visible_box_is_the_part_that_read_photo_returns(fit):
    """Other image decoders crop by it to match Pillow."""
    region = (0.1, 0.2, 0.9, 0.7)
    box, size = visible_box((320, 240), (40, 64), fit, region)
    assert box[0] >= 32 and box[1] >= 48 and box[2] <= 288 and box[3] <= 168
    photo = read_photo(scene(), (40, 64), fit, region)
    left, top = (64 - size[0]) // 2, (40 - size[1]) // 2
    alone = scene().resize(size, RESAMPLING, box, REDUCING_GAP)
    inside = photo.crop((left, top, left + size[0], top + size[1]))
    assert np.abs(np.asarray(inside, int) - np.asarray(alone, int)).max() <= 1


def test_upright_size_swaps_the_sides_of_rotated_photos():
    for file_format in ("JPEG", "PNG", "TIFF", "WEBP"):
        rotated = encoded(scene(30, 20), file_format, exif=exif_with_orientation(6))
        assert upright_size(rotated) == (20, 30)
    with pytest.raises(UnreadablePhoto, match="empty"):
        upright_size(b"")
