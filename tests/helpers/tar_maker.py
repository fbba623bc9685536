"""Generates small photos and tar files of any members."""

from __future__ import annotations

import io
import json
import tarfile
from collections.abc import Iterable
from pathlib import Path

import numpy as np
from PIL import Image


def photo(seed: int = 0, side: int = 64, kind: str = "JPEG") -> bytes:
    """Returns an encoded photo of noise, `side` pixels high and 1.5 times as wide."""
    rng = np.random.default_rng(seed)
    pixels = rng.integers(0, 256, (side, side + side // 2, 3), np.uint8)  # (h, w, 3)
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, kind)
    return file.getvalue()


def sample(key: str, caption: str = "A dog.", seed: int = 0) -> list[tuple[str, bytes]]:
    """Returns the tar members of a valid sample: a photo and its caption."""
    return [(f"{key}.jpg", photo(seed)), (f"{key}.txt", caption.encode())]


def captioned(key: str, content: object) -> list[tuple[str, bytes]]:
    """Returns the tar members of a photo with a JSON file."""
    return [(f"{key}.jpg", photo()), (f"{key}.json", json.dumps(content).encode())]


def write_tar(
    path: Path, members: Iterable[tuple[str, bytes]], tar_format: int = tarfile.PAX_FORMAT
) -> str:
    """Writes a tar of these files and returns its path."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(path, "w", format=tar_format) as tar:
        for name, data in members:
            member = tarfile.TarInfo(name)
            member.size = len(data)
            tar.addfile(member, io.BytesIO(data))
    return str(path)


def add_special(path: Path, kind: bytes, name: str, target: str = "") -> None:
    """Appends a link, folder or other special member to a tar."""
    with tarfile.open(path, "a") as tar:
        member = tarfile.TarInfo(name)
        member.type, member.linkname = kind, target
        tar.addfile(member)
