"""Photos with damaged metadata that a description is written to.

A photo is refused and unchanged, or its description is found by Pillow and by exiftool, where that
is installed, and its pixels are the same as before.
"""

from __future__ import annotations

import io
import json
import shutil
import subprocess
import tempfile
import warnings
from collections.abc import Callable
from pathlib import Path
from random import Random

import checkout  # noqa: F401
from fuzz_damages import cut, flip_bits, insert, remove, run_cases
from fuzz_photos import edit_header, mend_png, overwrite
from fuzz_report import Report
from fuzz_worker import Result, refusal
from PIL import Image

from helpers.photo_metadata import EXTENSIONS, encode, exif_description, frames

FORMATS: tuple[tuple[str, str, dict], ...] = (
    ("JPEG", "RGB", {}), ("JPEG", "L", {"progressive": True}), ("MPO", "RGB", {"save_all": True}),
    ("PNG", "RGBA", {}), ("PNG", "P", {"save_all": True}), ("WEBP", "RGB", {}),
    ("WEBP", "RGBA", {"lossless": True}), ("WEBP", "RGB", {"save_all": True}),
    ("TIFF", "RGB", {}), ("TIFF", "RGB", {"compression": "tiff_lzw"}),
)  # fmt: skip
PHOTOS = {
    f"{form} {mode} {' '.join(options)} {'with' if rich else 'without'} metadata": (
        EXTENSIONS[form],
        encode(form, mode, rich, **options),
    )
    for form, mode, options in FORMATS
    for rich in (True, True, False)
}
DAMAGES = (flip_bits, flip_bits, overwrite, edit_header, remove, cut, insert)
TEXTS = ("A dog.", "Ein Bär & <eine> Katze 犬", "long " * 60 + "end")


def fuzz(cases: int, seed: int) -> Report:
    """Writes descriptions to damaged photos."""
    return run_cases(cases, seed, make_file, make_reader)


def make_file(rng: Random) -> tuple[str, tuple]:
    """Returns (description, (suffix, content, kind, text))."""
    name = rng.choice(sorted(PHOTOS))
    suffix, whole = PHOTOS[name]
    data, damages = bytearray(whole), []
    # Metadata are at the start, or in WebP at the end.
    start = rng.choice((0, 0, 0, max(0, len(data) - 900)))
    part = data[start : start + rng.choice((60, 900, len(data)))]
    stop = start + len(part)
    for _ in range(rng.choice((1, 1, 1, 2, 4))):
        damage = rng.choice(DAMAGES)
        part = bytearray(damage(part, rng))
        damages.append(damage.__name__)
    data[start:stop] = part
    if suffix == "png" and rng.random() < 0.5:
        data = bytearray(mend_png(bytes(data)))
        damages.append(mend_png.__name__)
    case = (suffix, bytes(data), rng.choice(("xmp", "exif")), rng.choice(TEXTS))
    return f"{name} with {', '.join(damages)}", case


def make_reader() -> Callable[[tuple], Result]:
    """Returns the function that writes a description and reads it with other programs."""
    warnings.simplefilter("ignore")
    Image.MAX_IMAGE_PIXELS = 10**6  # Pillow takes minutes for sizes that damage declares
    from effcap.tools.metadata.descriptions import write_description
    from effcap.tools.metadata.edits import MetadataError

    folder = Path(tempfile.mkdtemp(prefix="fuzz-"))
    has_exiftool = shutil.which("exiftool") is not None

    def read(case: tuple) -> Result:
        suffix, data, kind, text = case
        path = folder / f"photo.{suffix}"
        path.write_bytes(data)
        before = _frames(data)
        try:
            write_description(path, kind, text)
        except MetadataError as error:
            is_same = path.read_bytes() == data
            return refusal(error) if is_same else ("wrong", "refused, but changed")
        new = path.read_bytes()
        if before is not None and _frames(new) != before:
            return "wrong", "other pixels"
        if before is not None and kind == "exif" and exif_description(new) != text:
            return "wrong", f"Pillow finds {exif_description(new)!r}"
        if has_exiftool and (found := _exiftool(path, kind)) != text:
            return "wrong", f"exiftool finds {found!r}"
        return "accepted", ""

    return read


def _frames(data: bytes) -> list[tuple[str, bytes]] | None:
    """Returns the pixels of a photo; None if Pillow cannot read it."""
    try:
        return frames(data)
    except (OSError, ValueError, SyntaxError, TypeError, KeyError, IndexError, EOFError,
            RuntimeError, AttributeError, Image.DecompressionBombError):  # fmt: skip
        return None


def _exiftool(path: Path, kind: str) -> str | None:
    tag = {"xmp": "XMP-dc:Description", "exif": "IFD0:ImageDescription"}[kind]
    command = ["exiftool", "-j", "-G1", f"-{tag}", str(path)]
    output = subprocess.run(command, capture_output=True, check=False).stdout
    return json.load(io.BytesIO(output))[0].get(tag) if output else None
