"""Which photos have region features, and what is wrong with those of the others."""

from __future__ import annotations

import json
import os
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from effcap.trainers.data.example import CaptionedPhoto, Problem
from effcap.trainers.data.regions.region_file import SUFFIX, RegionFile, UnusableRegions, keys_of
from effcap.utils.progress import track

Found = list[tuple[CaptionedPhoto, str]]  # photos and their datasets


def find_regions(
    photos: Sequence[CaptionedPhoto],
    file: RegionFile,
    ids: Mapping[str, str],
    title: str | None = None,
) -> tuple[Found, list[Problem]]:
    """(photos and their datasets, what is wrong with the others), by names and shapes alone.

    Args:
        photos: with their captions.
        file: of the features.
        ids: COCO's ids of the photos by their absolute paths, where they have any.
        title: of a progress bar; None for no bar.
    """
    found: Found = []
    problems = []
    for photo in track(photos, len(photos), title):
        keys = keys_of(photo.name, ids.get(os.path.abspath(photo.path)))
        name = file.find(keys)
        if name is None:
            names = ", ".join(f"{key}{SUFFIX}" for key in keys)
            reason = f"expected features {names}. Received: others, such as {file.example}"
        else:
            try:
                file.place(name)
                found.append((photo, name))
                continue
            except UnusableRegions as error:
                reason = str(error)
        problems.append(Problem(str(photo.path), reason, len(photo.captions)))
    times = Counter(name for _, name in found)
    for photo, name in found:
        if times[name] > 1:
            reason = f"expected features of its own. Received: {name}, for {times[name]} photos"
            problems.append(Problem(str(photo.path), reason, len(photo.captions)))
    return [(photo, name) for photo, name in found if times[name] == 1], problems


def check_width(file: RegionFile, names: Iterable[str], channels: int) -> None:
    """Raises a ValueError where none of the features has the width that the captioner takes."""
    widths = Counter(file.place(name).channels for name in names)
    if widths and channels not in widths:
        width = widths.most_common(1)[0][0]
        raise ValueError(
            f"Expected features of width {channels} (encoder.channels). Received: width {width} in "
            f"{file.path}; train a new captioner with --set encoder.channels={width}"
        )


def check_regions(
    file: RegionFile,
    found: Found,
    channels: int,
    title: str | None = None,
    record: Path | None = None,
) -> tuple[Found, list[Problem]]:
    """Reads all features once: (what can be used, what is wrong with the rest).

    Args:
        file: that holds them.
        found: photos and their datasets.
        channels: width C.
        title: of a progress bar; None for no bar.
        record: as in `RegionData.make_batches`.
    """
    status = file.path.stat()
    state = [str(file.path.resolve()), status.st_size, status.st_mtime_ns, file.limit, channels]
    known = _read_record(record, state)

    def check(item: tuple[CaptionedPhoto, str]) -> str | None:
        try:
            if item[1] not in known:
                file.read(item[1], channels)
        except UnusableRegions as error:
            return str(error)
        return None

    pool = ThreadPoolExecutor(os.cpu_count() or 1)
    try:
        reasons = list(track(pool.map(check, found), len(found), title))
    finally:
        pool.shutdown(cancel_futures=True)
    good = [item for item, reason in zip(found, reasons, strict=True) if reason is None]
    if record is not None:
        _write_record(record, state, [name for _, name in good])
    return good, [
        Problem(str(photo.path), reason, len(photo.captions))
        for (photo, _), reason in zip(found, reasons, strict=True)
        if reason is not None
    ]


def _read_record(record: Path | None, state: list) -> set[str]:
    """Datasets found good earlier in a file that has not changed."""
    try:
        known = json.loads(record.read_text(encoding="utf-8")) if record is not None else {}
        return set(known["good"]) if known.get("file") == state else set()
    except (OSError, ValueError, AttributeError, KeyError):
        return set()


def _write_record(record: Path, state: list, names: list[str]) -> None:
    record.parent.mkdir(parents=True, exist_ok=True)
    whole = record.with_suffix(".new")
    whole.write_text(json.dumps({"file": state, "good": names}), encoding="utf-8")
    whole.replace(record)
