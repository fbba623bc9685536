"""Damaged CSV and JSON files of captions, and damaged photos of all formats.

A caption file that is taken must give what a second, simpler parser reads: every caption, or a
problem in its place. A photo that is taken although its end is cut off must look as the whole does.
"""

from __future__ import annotations

import io
import json
import os
import random
import struct
import tempfile
import warnings
import zlib
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import numpy as np
from fuzz_report import Report
from fuzz_worker import Answer, Worker
from PIL import Image, features
from reference_readers import reference_csv, reference_json

NAMES = ("a.jpg", "b c.png", "é東.jpg", "sub/d.jpg", "./a.jpg", "cut.jpg", "text.jpg", "gone.jpg")
CAPTIONS = (
    "A dog runs.", "Two men, one with a hat , sit .", 'A sign says "stop".', "two\nlines",
    "é 東 \U0001f431", "a man on the left", "word " * 40, "long " * 900, " spaces ", "x", "", "'",
    "A [dog] {runs}.",
)  # fmt: skip
INSERTED = (
    b'"', b'""', b",", b"\n", b"\r", b"\r\n", b"\0", b";", b"\t", b"\xff", b"\xef\xbb\xbf", b"\\",
    b" ", b"[", b"]", b"{", b"}", b"null", b"\\ud800", b"1e999", b'"image"', b"\xe2\x80\xa8", b"-",
)  # fmt: skip
LONGEST_MESSAGE = 20_000  # ten problems of a kilobyte, and what stands around them


def fuzz_csv(cases: int, seed: int) -> Report:
    """Reads and prepares `cases` damaged CSV and JSON files; the same seed makes the same ones."""
    return _fuzz(cases, seed, caption_file, make_reader)


def fuzz_images(cases: int, seed: int) -> Report:
    """Reads `cases` damaged photos; the same seed makes the same ones."""
    return _fuzz(cases, seed, photo_file, make_looker)


def _fuzz(cases: int, seed: int, case: Callable, make: Callable) -> Report:
    report = Report()
    with Worker(make) as worker:
        for number in range(cases):
            what, given = case(random.Random(f"{seed} {number}"))
            kind, told = worker.attempt(given)
            if kind == "taken":
                report.add_success()
            elif kind == "refused":
                report.add_error(told)
            else:
                report.add_failure(number, f"{what}: {kind}: {told}")
    return report


# Caption files


def caption_file(dice: random.Random) -> tuple[str, tuple[str, bytes]]:
    """(what it is, (form, content)) of a file of captions, damaged in up to four places."""
    pairs = [(dice.choice(NAMES), dice.choice(CAPTIONS)) for _ in range(dice.randrange(12))]
    form = dice.choice(("csv", "csv", "csv", "coco", "list", "lines"))
    data = bytearray(WRITERS[form](pairs, dice))
    done = []
    for _ in range(dice.choice((0, 1, 1, 1, 2, 4))):
        damage = dice.choice(TEXT_DAMAGES)
        data = bytearray(damage(data, dice))
        done.append(damage.__name__)
    return f"{form} with {', '.join(done) or 'no damage'}", (form, bytes(data))


def write_csv(pairs: list[tuple[str, str]], dice: random.Random) -> bytes:
    end = dice.choice(("\n", "\r\n", "\r"))

    def field(text: str) -> str:
        must = any(c in text for c in ',"\n\r') or text.startswith(" ")
        return '"' + text.replace('"', '""') + '"' if must or dice.random() < 0.3 else text

    columns = ["image", "caption", "more"][: dice.choice((2, 3))]
    dice.shuffle(columns)
    rows = [dict(zip(("image", "caption", "more"), (*pair, "1"), strict=True)) for pair in pairs]
    lines = [columns, *([row[column] for column in columns] for row in rows)]
    text = "".join(",".join(map(field, line)) + end for line in lines)
    return text.encode(dice.choice(("utf-8", "utf-8", "utf-8-sig")))


def write_coco(pairs: list[tuple[str, str]], dice: random.Random) -> bytes:
    ids = {name: number for number, name in enumerate(dict(pairs))}
    content = {
        "images": [{"id": number, "file_name": name} for name, number in ids.items()],
        "annotations": [{"image_id": ids[name], "caption": text} for name, text in pairs],
    }
    return json.dumps(content, indent=dice.choice((None, 1)), ensure_ascii=False).encode()


def write_list(pairs: list[tuple[str, str]], dice: random.Random) -> bytes:
    return json.dumps(_records(pairs, dice), indent=dice.choice((None, 1))).encode()


def write_lines(pairs: list[tuple[str, str]], dice: random.Random) -> bytes:
    return "\n".join(json.dumps(record) for record in _records(pairs, dice)).encode()


def _records(pairs: list[tuple[str, str]], dice: random.Random) -> list[dict]:
    return [
        {"image": name, dice.choice(("text", "caption")): dice.choice((text, [text, "more"]))}
        for name, text in pairs
    ]


WRITERS = {"csv": write_csv, "coco": write_coco, "list": write_list, "lines": write_lines}


def flip_bits(data: bytearray, dice: random.Random) -> bytes:
    for _ in range(min(len(data), dice.choice((1, 1, 3, 20)))):
        data[dice.randrange(len(data))] ^= 1 << dice.randrange(8)
    return data


def insert(data: bytearray, dice: random.Random) -> bytes:
    at = dice.randrange(len(data) + 1)
    return data[:at] + dice.choice(INSERTED) + data[at:]


def remove(data: bytearray, dice: random.Random) -> bytes:
    at = dice.randrange(len(data) + 1)
    return data[:at] + data[at + dice.randrange(1, 20) :]


def cut(data: bytearray, dice: random.Random) -> bytes:
    return data[: dice.randrange(len(data) + 1)]


def repeat(data: bytearray, dice: random.Random) -> bytes:
    start, end = sorted(dice.randrange(len(data) + 1) for _ in range(2))
    return data[:end] + data[start:]


def swap_lines(data: bytearray, dice: random.Random) -> bytes:
    lines = bytes(data).split(b"\n")
    dice.shuffle(lines)
    return b"\n".join(lines)


def re_encode(data: bytearray, dice: random.Random) -> bytes:
    text = data.decode("utf-8", "replace")
    return text.encode(dice.choice(("utf-16", "utf-16-le", "utf-32", "latin-1")), "replace")


def separate(data: bytearray, dice: random.Random) -> bytes:
    return data.replace(b",", dice.choice((b";", b"\t", b"|", b", ", b",,")))


def swell(data: bytearray, dice: random.Random) -> bytes:
    at = dice.randrange(len(data) + 1)
    size = dice.choice((10**4, 10**5, 10**6, 2**24 + 1))
    return (
        data[:at] + dice.choice((b"x", b'"', b"[", b" ", b"\n", b"1", b"word ")) * size + data[at:]
    )


TEXT_DAMAGES = (
    *(flip_bits, insert, insert, remove, cut, repeat, swap_lines) * 4,
    *(re_encode, separate) * 2,
    swell,
)  # fmt: skip


def make_reader() -> Callable[[tuple[str, bytes]], Answer]:
    """Gives the function that reads a file and prepares what is in it."""
    from effcap.tokenizers.tokenizer import Tokenizer
    from effcap.trainers import TooManyProblems, read_csv, read_json_captions
    from effcap.trainers.data.preparation import prepare

    folder = Path(tempfile.mkdtemp(prefix="fuzz-"))
    (folder / "sub").mkdir()
    for name in ("a.jpg", "b c.png", "é東.jpg", "sub/d.jpg", "cut.jpg"):
        scene().save(folder / name)
    (folder / "text.jpg").write_text("no photo")
    os.truncate(folder / "cut.jpg", 700)
    captioner = SimpleNamespace(
        encoder=SimpleNamespace(input_keys=("images",), image_size=(32, 32), fit="squash"),
        tokenizer=Tokenizer.train([text for text in CAPTIONS if text], 300),
        decoder=SimpleNamespace(positions=256),
    )

    def attempt(case: tuple[str, bytes]) -> Answer:
        form, content = case
        path = folder / "captions"
        path.write_bytes(content)
        expected = reference_csv(content) if form == "csv" else reference_json(content)
        try:
            data = read_csv(path) if form == "csv" else read_json_captions(path)
        except ValueError as error:
            if expected is not None:
                return "wrong", f"refused although well-formed: {error}"
            return refusal(error)
        if expected is None:
            return "wrong", "taken although malformed"
        pairs, bad = expected
        photos, problems = data
        found = Counter((p.path, text) for p in photos for text in p.captions)
        wanted = Counter((folder / os.path.normpath(name), text) for name, text in pairs)
        if found != wanted:
            return "wrong", f"captions {list((found - wanted) + (wanted - found))[:2]}"
        if sum(problem.captions for problem in problems) != bad:
            return "wrong", f"{bad} bad captions, but problems {list(map(str, problems))[:3]}"
        try:
            batches, summary = prepare("fuzzed", data, captioner, max_bad=0.9, batch_size=4)
        except (TooManyProblems, ValueError) as error:
            return refusal(error)
        lost = sum(problem.captions for problem in batches.problems)
        if sum(map(len, batches.captions)) + lost != len(pairs) + bad:
            return "wrong", "captions lost while preparing"
        if lost and not all(line.isprintable() for line in summary.splitlines()):
            return "wrong", f"a summary that cannot be printed: {summary[:200]!r}"
        for number in range(len(batches)):
            batches[number]
        return "taken", ""

    return attempt


def refusal(error: Exception) -> Answer:
    """An error for people: it says what was expected and what was received, and fits a screen."""
    message = str(error)
    clear = message.startswith(("Expected", "Cannot read")) and len(message) < LONGEST_MESSAGE
    if clear and all(line.isprintable() for line in message.split("\n")):
        return "refused", message
    return "unclear error", f"{type(error).__name__}: {message[:500]!r}"


# Photos


def scene(width: int = 48, height: int = 40) -> Image.Image:
    """A colourful picture with some detail."""
    corners = np.array([[[255, 0, 0], [0, 255, 0]], [[0, 0, 255], [255, 255, 255]]], np.uint8)
    smooth = np.asarray(Image.fromarray(corners).resize((width, height)), np.int16)
    noise = np.random.default_rng(0).integers(-20, 21, smooth.shape)
    return Image.fromarray(np.clip(smooth + noise, 0, 255).astype(np.uint8))


def _photos() -> dict[str, bytes]:
    """Whole photos of all formats, and kinds of each."""
    kinds: list[tuple[str, str, dict]] = [
        ("JPEG", "RGB", {}), ("JPEG", "RGB", {"progressive": True}), ("JPEG", "L", {}),
        ("JPEG", "CMYK", {}), ("JPEG", "RGB", {"restart_marker_rows": 1}), ("MPO", "RGB", {}),
        ("PNG", "RGB", {}), ("PNG", "RGBA", {}), ("PNG", "P", {}), ("PNG", "LA", {}),
        ("PNG", "I;16", {}), ("PNG", "1", {}), ("WEBP", "RGB", {}),
        ("WEBP", "RGBA", {"lossless": True}), ("WEBP", "RGB", {"save_all": True}),
        ("BMP", "RGB", {}), ("BMP", "P", {}), ("BMP", "1", {}), ("GIF", "P", {"transparency": 0}),
        ("GIF", "P", {"save_all": True}), ("TIFF", "RGB", {"compression": "tiff_lzw"}),
        ("TIFF", "CMYK", {}), ("TIFF", "I;16", {}), ("TIFF", "F", {}), ("PPM", "RGB", {}),
        ("PPM", "L", {}),
    ]  # fmt: skip
    if "avif" in features.modules and features.check("avif"):
        kinds.append(("AVIF", "RGB", {}))
    exif = Image.Exif()
    exif[0x0112] = 6
    photos = {}
    for form, mode, options in kinds:
        if mode == "I;16":
            image = Image.fromarray(np.asarray(scene().convert("L")).astype(np.uint16) * 257)
        else:
            image = scene().convert(mode)
        if options.get("save_all"):
            options = {**options, "append_images": [image.transpose(Image.Transpose.ROTATE_180)]}
        if form in ("JPEG", "PNG", "WEBP", "TIFF"):
            options = {**options, "exif": exif}
        file = io.BytesIO()
        image.save(file, form, **options)
        photos[f"{form} {mode} {' '.join(options)}"] = file.getvalue()
    return photos


PHOTOS = _photos()


def photo_file(dice: random.Random) -> tuple[str, tuple]:
    """(what it is, (content, image size, fit, the whole if that was only cut off))."""
    name = dice.choice(sorted(PHOTOS))
    whole = PHOTOS[name]
    data, done = bytearray(whole), []
    for _ in range(dice.choice((1, 1, 1, 2, 4))):
        damage = dice.choice(PHOTO_DAMAGES)
        data = bytearray(damage(data, dice))
        done.append(damage.__name__)
    if name.startswith("PNG") and dice.random() < 0.5:
        data = bytearray(mend_png(bytes(data)))  # else nothing but its checksums is ever tried
        done.append(mend_png.__name__)
    size, fit = dice.choice(((32, 32), (20, 70))), dice.choice(("squash", "crop", "pad"))
    only_cut = whole if set(done) <= {"cut", "mend_png"} else None
    return f"{name} with {', '.join(done)}", (bytes(data), size, fit, only_cut)


def overwrite(data: bytearray, dice: random.Random) -> bytes:
    at, size = dice.randrange(len(data) + 1), dice.choice((1, 4, 8))
    data[at : at + size] = dice.choice((dice.randbytes(size), b"\xff" * size, bytes(size)))
    return data


def edit_header(data: bytearray, dice: random.Random) -> bytes:
    at = dice.randrange(max(1, min(len(data), 64)))
    data[at : at + 1] = bytes([dice.randrange(256)])
    return data


def resize(data: bytearray, dice: random.Random) -> bytes:
    """Declares another width or height, often a huge one, wherever one seems to stand."""
    old = dice.choice((48, 40, 47, 39))
    new = dice.choice((0, 1, 49, 5000, 13000, 16383, 65535, 2**24 - 1, 2**31 - 1, 2**32 - 1))
    form = dice.choice((">I", "<I", ">H", "<H"))
    mask = 2 ** (8 * struct.calcsize(form)) - 1
    return data.replace(struct.pack(form, old), struct.pack(form, new & mask), 2)


def end_early(data: bytearray, dice: random.Random) -> bytes:
    return cut(data, dice) + b"\xff\xd9"


def splice(data: bytearray, dice: random.Random) -> bytes:
    other = dice.choice(sorted(PHOTOS.items()))[1]
    return data[: dice.randrange(len(data) + 1)] + other[dice.randrange(len(other)) :]


PHOTO_DAMAGES = (
    flip_bits, flip_bits, overwrite, edit_header, resize, remove, cut, insert, splice, end_early,
)  # fmt: skip


def mend_png(data: bytes) -> bytes:
    """The checksums of all its chunks set right."""
    mended, at = bytearray(data[:8]), 8
    while at + 12 <= len(data):
        (size,) = struct.unpack(">I", data[at : at + 4])
        body = data[at + 4 : at + 8 + size]
        mended += data[at : at + 4] + body + struct.pack(">I", zlib.crc32(body))
        at += 12 + size
    return bytes(mended) + data[at:]


def make_looker() -> Callable[[tuple], Answer]:
    """Gives the function that reads a photo."""
    warnings.simplefilter("error")
    from effcap.images import UnreadablePhoto, load_photo
    from effcap.trainers import CaptionedPhoto, check_photos

    photo = CaptionedPhoto(Path(tempfile.mkdtemp(prefix="fuzz-"), "photo"), ("a caption",))

    def attempt(case: tuple) -> Answer:
        data, size, fit, whole = case
        photo.path.write_bytes(data)
        good, problems = check_photos([photo], size)
        try:
            pixels = load_photo(data, size, fit)
        except UnreadablePhoto as error:
            if good or problems[0].reason != error.reason:
                return "wrong", f"checked as {problems}, but {error}"
            return ("no memory", str(error)) if "MemoryError" in str(error) else refusal(error)
        if pixels.shape != (*size, 3) or pixels.dtype != np.uint8:
            return "wrong", f"{pixels.dtype} pixels of shape {pixels.shape}"
        if problems and "data end before" in problems[0].reason:
            return "refused", str(problems[0])
        if problems:
            return "wrong", f"checked as {problems[0]}, but read"
        if whole is not None and not np.array_equal(pixels, load_photo(whole, size, fit)):
            return "wrong", "cut off, but taken, and not as the whole"
        return "taken", ""

    return attempt
