"""Writes photos with captions to webdataset shards."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from io import BytesIO
from os import PathLike
from pathlib import Path

from PIL import Image

from effcap.images import FORMATS, IMAGE_SUFFIXES
from effcap.trainers.data.dataset import ExampleDataset
from effcap.trainers.data.example import Example, check_problems
from effcap.trainers.data.photos import check_photos
from effcap.trainers.data.shards.tar import BLOCK
from effcap.utils.files import replace_file, write_text_atomically
from effcap.utils.parallel import run_jobs
from effcap.utils.progress import ProgressBar

CHECK_SIZE = (224, 224)  # height and width at which photos are decoded to check them
PLAN, LEFT_OUT, RECORD = "plan.json", "left_out.txt", ".checked.bin"
TAR_RECORD = 20 * BLOCK  # bytes; a tar's size is a multiple of it
END_MARK = 2 * BLOCK  # bytes
SUFFIXES = {"JPEG": ".jpg", "MPO": ".jpg"}  # suffixes that differ from the format's name


@dataclass(frozen=True)
class Entry:
    """A photo in the plan.

    Attributes:
        key: key of the sample.
        path: file of the photo.
        size, time_ns: size of the file in bytes and its time of modification.
        captions: captions of the photo.
        name: name of the photo in the data.
    """

    key: str
    path: Path
    size: int
    time_ns: int
    captions: tuple[str, ...]
    name: str

    @property
    def texts(self) -> dict[str, bytes]:
        """Members of the sample besides the photo, by suffix without the dot."""
        content = {"captions": self.captions, "image": self.name}
        text = json.dumps(content, ensure_ascii=False)
        return {"json": text.encode(), "txt": self.captions[0].encode()}

    @property
    def tar_bytes(self) -> int:
        """Number of bytes that the sample takes in a tar."""
        sizes = [self.size, *map(len, self.texts.values())]
        return sum(BLOCK + -(-size // BLOCK) * BLOCK for size in sizes)


@dataclass(frozen=True)
class WriteSummary:
    """Summary of `write_shards`.

    Attributes:
        shards: paths of all shards.
        num_existing: number of shards that an earlier call had written.
        num_samples: number of photos in the shards.
        num_captions: number of their captions.
        left_out: text that describes what was left out, or "".
    """

    shards: list[Path]
    num_existing: int
    num_samples: int
    num_captions: int
    left_out: str = ""


def write_shards(
    dataset: ExampleDataset,
    out: str | PathLike,
    *,
    max_count: int = 10_000,
    max_size: int = 10**9,
    max_bad: float = 0.01,
    num_processes: int = 1,
) -> WriteSummary:
    """Writes photos and captions to shards 00000.tar, 00001.tar, ...

    A sample is NUMBER.jpg (the unchanged file with its suffix), NUMBER.json with all captions
    (`{"captions": [...], "image": name}`) and NUMBER.txt with the first one. Photos that cannot be
    decoded are left out. All shards are planned first: their bytes do not depend on the number of
    processes, and an interrupted call can be repeated with the same photos. Shows progress bars.

    Args:
        dataset: photos such as `read_csv` returns.
        out: folder for the shards, the plan and the list of what was left out; new, empty, or of
            an earlier call with the same photos and limits.
        max_count: maximum number of samples per shard.
        max_size: maximum number of bytes per shard.
        max_bad: raise an error if more than this fraction of the captions is unusable.
        num_processes: shards written at the same time; see `index_shards`.

    Raises:
        TooManyProblems: more than `max_bad` of the captions cannot be used.
        ValueError: there are no photos, they have prefixes or are stored in a table; a limit is
            too small; or a photo changes while writing.
        FileExistsError: the folder holds other shards.
        OSError: a photo cannot be read or a shard cannot be written.
        ImportError: webdataset is not installed.

    Example:
        >>> write_shards(read_csv("train.csv", "photos"), "shards")
    """
    _check_webdataset()
    prefixed = next((example for example in dataset.examples if example.prefix), None)
    if prefixed is not None:
        raise ValueError(
            "Expected photos without prefixes, which shards do not store; remove them, and train "
            f"with one prefix for all. Received: {prefixed.name} with {prefixed.prefix!r}"
        )
    stored = next((example for example in dataset.examples if example.stored), None)
    if stored is not None:
        raise ValueError(
            f"Expected photos in files of their own to pack into shards. Received: {stored.path}"
        )
    out = Path(out)
    examples, problems = check_photos(
        dataset.examples,
        CHECK_SIZE,
        num_threads=num_processes,
        title="checking photos",
        record=out / RECORD,
    )
    left_out = check_problems(
        "input", dataset.problems + problems, dataset.num_captions, max_bad, out / LEFT_OUT
    )
    plan = _plan(examples, max_count, max_size)
    out.mkdir(parents=True, exist_ok=True)
    _write_plan(out, plan)
    num_digits = max(5, len(str(len(plan) - 1)))
    paths = [out / f"{number:0{num_digits}d}.tar" for number in range(len(plan))]
    with ProgressBar("writing photos", len(examples)) as bar:
        jobs = []
        for path, entries in zip(paths, plan, strict=True):
            if path.is_file():  # complete, since it is renamed at the end
                bar.advance(steps=len(entries))
            else:
                jobs.append(WriteJob(path, tuple(entries)))
        run_jobs(jobs, num_processes, lambda count: bar.advance(steps=count))
    num_captions = sum(len(example.captions) for example in examples)
    return WriteSummary(paths, len(paths) - len(jobs), len(examples), num_captions, left_out)


def _plan(examples: Sequence[Example], max_count: int, max_size: int) -> list[list[Entry]]:
    """Returns the entries of each shard."""
    if not examples:
        raise ValueError("There are no photos to write")
    if max_count < 1:
        raise ValueError(f"Expected max_count of at least 1. Received: max_count={max_count}")
    shards: list[list[Entry]] = []
    limit = max_size // TAR_RECORD * TAR_RECORD - END_MARK
    room = -1
    for number, example in enumerate(examples):
        status = os.stat(example.path)
        entry = Entry(
            key=f"{number:09d}",
            path=Path(example.path),
            size=status.st_size,
            time_ns=status.st_mtime_ns,
            captions=tuple(example.captions),
            name=example.name,
        )
        if entry.tar_bytes > limit:
            needed = -(-(entry.tar_bytes + END_MARK) // TAR_RECORD) * TAR_RECORD
            raise ValueError(
                f"Expected max_size of at least {needed}, for {example.path}. "
                f"Received: max_size={max_size}"
            )
        if entry.tar_bytes > room or len(shards[-1]) == max_count:
            shards.append([])
            room = limit
        shards[-1].append(entry)
        room -= entry.tar_bytes
    return shards


def _write_plan(out: Path, plan: list[list[Entry]]) -> None:
    """Writes the plan.

    Raises:
        FileExistsError: the folder holds shards of another plan.
    """
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
    path = out / PLAN
    earlier = path.read_text(encoding="utf-8") if path.is_file() else ""
    if earlier != text and next(out.glob("*.tar"), None) is not None:
        content_of_out = "other photos, captions or limits" if earlier else f"no {PLAN}"
        raise FileExistsError(
            f"{out} holds shards with {content_of_out}; choose a new folder, or repeat the call "
            "with the same photos"
        )
    write_text_atomically(path, text)


def _check_webdataset() -> None:
    try:
        import webdataset  # noqa: F401
    except ImportError:
        raise ImportError(
            "Writing shards requires webdataset: pip install 'effcap[webdataset]'"
        ) from None


@dataclass(frozen=True)
class WriteJob:
    """Writes a shard atomically.

    Attributes:
        path: path of the shard.
        entries: its photos.
    """

    path: Path
    entries: tuple[Entry, ...]

    def __call__(self, advance: Callable[[int], None]) -> None:
        """Runs the job."""
        from webdataset import TarWriter

        new = self.path.with_name(f".new-{self.path.stem}")
        with new.open("wb") as file, TarWriter(file, encoder=False, mtime=0) as writer:
            for entry in self.entries:
                photo = entry.path.read_bytes()
                if len(photo) != entry.size:
                    raise ValueError(
                        f"{entry.path} changed while the shards were written: {len(photo)} bytes "
                        f"instead of {entry.size}; start again in a new folder"
                    )
                suffix = _suffix(entry.path, photo)[1:]
                writer.write({"__key__": entry.key, suffix: photo, **entry.texts})
                advance(1)
        replace_file(new, self.path)


def _suffix(path: Path, photo: bytes) -> str:
    """Returns the suffix of a photo's file, or of its format if the file's is not an image's."""
    suffix = path.suffix.lower()
    if suffix in IMAGE_SUFFIXES:
        return suffix
    image_format = Image.open(BytesIO(photo), formats=FORMATS).format or ""
    return SUFFIXES.get(image_format, f".{image_format.lower()}")
