"""Photos with captions into webdataset shards."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from io import BytesIO
from os import PathLike
from pathlib import Path
from typing import Protocol

from PIL import Image

from effcap.images import FORMATS, IMAGE_SUFFIXES
from effcap.trainers.data.shards.jobs import run_jobs
from effcap.trainers.data.shards.tar import BLOCK
from effcap.utils.files import replace_file, write_text_atomically

PLAN = "plan.json"
RECORD = 20 * BLOCK  # bytes that the length of a tar is a multiple of
END = 2 * BLOCK  # bytes of its end mark
USUAL = {"JPEG": ".jpg", "MPO": ".jpg"}  # suffixes that are not the format's name


class PhotoWithCaptions(Protocol):
    """A photo's file, its captions, and what the data call it."""

    path: Path
    captions: tuple[str, ...]
    name: str


@dataclass(frozen=True)
class Entry:
    """A photo in the plan; `size` in bytes and `time_ns` are its file's."""

    key: str
    path: Path
    size: int
    time_ns: int
    captions: tuple[str, ...]
    name: str

    @property
    def texts(self) -> dict[str, bytes]:
        """The members beside the photo, by suffix without the dot."""
        content = {"captions": self.captions, "image": self.name}
        text = json.dumps(content, ensure_ascii=False)
        return {"json": text.encode(), "txt": self.captions[0].encode()}

    @property
    def tar_bytes(self) -> int:
        """What it takes in a tar."""
        sizes = [self.size, *map(len, self.texts.values())]
        return sum(BLOCK + -(-size // BLOCK) * BLOCK for size in sizes)


@dataclass(frozen=True)
class WriteSummary:
    """The shards there are, how many of them an earlier run had written, and what they hold."""

    shards: list[Path]
    known: int
    samples: int
    captions: int


def write_shards(
    photos: Sequence[PhotoWithCaptions],
    folder: str | PathLike,
    max_count: int = 10_000,
    max_size: int = 10**9,
    processes: int = 1,
    advance: Callable[[int], None] | None = None,
) -> WriteSummary:
    """Writes photos, as they are, with their captions into shards 00000.tar, 00001.tar, ...

    A sample is NUMBER.jpg (or as the photo's suffix is), NUMBER.json with all captions
    (`{"captions": [...], "image": name}`), and NUMBER.txt with the first. What goes into which
    shard is planned first: the shards are the same bytes whatever the number of processes, and a
    run that was broken off goes on if it is started again with the same photos.

    Args:
        photos: such as `effcap.trainers.read_csv` gives; files that can be read, with captions.
        folder: for the shards and plan.json; new, empty, or of an earlier run of the same plan.
        max_count: most samples in a shard.
        max_size: most bytes of a shard.
        processes: how many shards are written at the same time; see `index_shards`.
        advance: called now and then with the number of photos written since.

    Raises:
        ValueError: for no photos, limits that no photo fits, webdataset missing, or a photo that
            changed meanwhile.
        FileExistsError: for a folder with other shards.
        OSError: when a photo cannot be read or a shard not be written.
    """
    folder = Path(folder)
    _check_webdataset()
    plan = _plan(photos, max_count, max_size)
    folder.mkdir(parents=True, exist_ok=True)
    _take_down(folder, plan)
    digits = max(5, len(str(len(plan) - 1)))
    paths = [folder / f"{number:0{digits}d}.tar" for number in range(len(plan))]
    advance = advance or (lambda count: None)
    jobs = []
    for path, entries in zip(paths, plan, strict=True):
        if path.is_file():  # whole, since it took its name at the end
            advance(len(entries))
        else:
            jobs.append(WriteJob(path, tuple(entries)))
    run_jobs(jobs, processes, advance)
    captions = sum(len(entry.captions) for entries in plan for entry in entries)
    return WriteSummary(paths, len(paths) - len(jobs), len(photos), captions)


def _plan(photos: Sequence[PhotoWithCaptions], max_count: int, max_size: int) -> list[list[Entry]]:
    """What goes into which shard."""
    if not photos:
        raise ValueError("Expected photos to write. Received: none")
    if max_count < 1:
        raise ValueError(f"Expected max_count of at least 1. Received: max_count={max_count}")
    shards: list[list[Entry]] = []
    most = max_size // RECORD * RECORD - END
    room = -1
    for number, photo in enumerate(photos):
        status = os.stat(photo.path)
        about = (status.st_size, status.st_mtime_ns, tuple(photo.captions), photo.name)
        entry = Entry(f"{number:09d}", Path(photo.path), *about)
        if entry.tar_bytes > most:
            needed = -(-(entry.tar_bytes + END) // RECORD) * RECORD
            raise ValueError(
                f"Expected max_size of at least {needed}, for {photo.path}. "
                f"Received: max_size={max_size}"
            )
        if entry.tar_bytes > room or len(shards[-1]) == max_count:
            shards.append([])
            room = most
        shards[-1].append(entry)
        room -= entry.tar_bytes
    return shards


def _take_down(folder: Path, plan: list[list[Entry]]) -> None:
    """Writes the plan; FileExistsError in a folder where there are shards of another one."""
    digest = hashlib.blake2b(digest_size=16)
    for entries in plan:
        for entry in entries:
            line = [entry.key, entry.size, entry.time_ns, entry.captions, entry.name]
            digest.update(json.dumps(line).encode())
        digest.update(b"\n")
    content = {
        "fingerprint": digest.hexdigest(),
        "shards": len(plan),
        "samples": sum(map(len, plan)),
    }
    text = json.dumps(content, indent=2) + "\n"
    path = folder / PLAN
    known = path.read_text(encoding="utf-8") if path.is_file() else ""
    if known != text and next(folder.glob("*.tar"), None) is not None:
        found = "those of other photos, captions or limits" if known else f"no {PLAN}"
        raise FileExistsError(
            f"Expected a new folder, or one with shards of the same photos. Received: {folder}, "
            f"with shards and {found}"
        )
    write_text_atomically(path, text)


def _check_webdataset() -> None:
    try:
        import webdataset  # noqa: F401
    except ImportError:
        raise ValueError(
            "Expected the package webdataset to write shards (pip install 'effcap[webdataset]'). "
            "Received: none"
        ) from None


@dataclass(frozen=True)
class WriteJob:
    """A shard to write."""

    path: Path
    entries: tuple[Entry, ...]

    def __call__(self, advance: Callable[[int], None]) -> None:
        """Writes it, whole or not at all."""
        from webdataset import TarWriter

        new = self.path.with_name(f".new-{self.path.stem}")
        with new.open("wb") as file, TarWriter(file, encoder=False, mtime=0) as writer:
            for entry in self.entries:
                photo = entry.path.read_bytes()
                if len(photo) != entry.size:
                    raise ValueError(
                        f"Expected {entry.path} to stay as it is. Received: {len(photo)} bytes in "
                        f"place of {entry.size}; run it again in a new folder"
                    )
                suffix = _suffix(entry.path, photo)[1:]
                writer.write({"__key__": entry.key, suffix: photo, **entry.texts})
                advance(1)
        replace_file(new, self.path)


def _suffix(path: Path, photo: bytes) -> str:
    """By which a photo is known to be one: its own, or that of its format."""
    suffix = path.suffix.lower()
    if suffix in IMAGE_SUFFIXES:
        return suffix
    image_format = Image.open(BytesIO(photo), formats=FORMATS).format or ""
    return USUAL.get(image_format, f".{image_format.lower()}")
