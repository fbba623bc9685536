"""Finds and checks the region features of photos."""

from __future__ import annotations

import json
import os
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from effcap.trainers.data.example import Example, Problem
from effcap.trainers.data.regions.feature_input import FeatureInput
from effcap.trainers.data.regions.region_file import (
    SUFFIX,
    RegionFile,
    UnusableRegions,
    candidate_keys,
)
from effcap.utils.files import write_text_atomically
from effcap.utils.progress import track

Named = list[tuple[Example, str]]  # examples and the names of their datasets


def find_regions(
    examples: Sequence[Example],
    file: RegionFile,
    ids: Mapping[str, str],
    title: str | None = None,
) -> tuple[Named, list[Problem]]:
    """Finds the features of photos by name and checks their shapes.

    Args:
        examples: photos with captions.
        file: file of the features.
        ids: COCO ids by the photos' absolute paths.
        title: title of a progress bar; None for no bar.

    Returns:
        (examples with the names of their datasets, problems of the others). Photos that would share
        a dataset are problems.
    """
    named: Named = []
    problems = []
    for example in track(examples, len(examples), title):
        keys = candidate_keys(example.name, ids.get(os.path.abspath(example.path)))
        name = file.find_dataset(keys)
        if name is None:
            names = ", ".join(f"{key}{SUFFIX}" for key in keys)
            reason = f"expected features {names}. Received: others, such as {file.example_name}"
        else:
            try:
                file.layout(name)
                named.append((example, name))
                continue
            except UnusableRegions as error:
                reason = str(error)
        problems.append(Problem(str(example.path), reason, len(example.captions)))
    uses = Counter(name for name, _ in {(name, example.path) for example, name in named})
    for example, name in named:
        if uses[name] > 1:
            reason = f"expected its own features. Received: {name}, which {uses[name]} photos match"
            problems.append(Problem(str(example.path), reason, len(example.captions)))
    return [(example, name) for example, name in named if uses[name] == 1], problems


def check_shape(file: RegionFile, names: Iterable[str], expected: FeatureInput) -> None:
    """Checks that some features have the shape that the captioner takes.

    Raises:
        ValueError: all have another one.
    """
    layouts = [file.layout(name) for name in names]
    width, positions = expected.feature_dim, expected.num_positions
    if positions is None:
        widths = Counter(layout.feature_dim for layout in layouts)
        if widths and width not in widths:
            other = widths.most_common(1)[0][0]
            raise ValueError(
                f"Expected features of width {width} (encoder.feature_dim). Received: width "
                f"{other} in {file.path}; train a new captioner with "
                f"--set encoder.feature_dim={other}"
            )
        return
    shapes = Counter((layout.num_rows, layout.feature_dim) for layout in layouts)
    if shapes and (positions, width) not in shapes:
        received = shapes.most_common(1)[0][0]
        raise ValueError(
            f"Expected features of shape (S, C) = {(positions, width)}, as of the captioner's "
            f"backbone. Received: {received} in {file.path}; train a new captioner whose backbone "
            "has such features (--set encoder.backbone.network=NAME, and for one vector of CLIP "
            "encoder.backbone.output=embedding)"
        )


def check_max_regions(file: RegionFile, expected: FeatureInput) -> None:
    """Checks that a file reads as many positions per photo as the captioner takes.

    Raises:
        ValueError: it reads fewer.
    """
    positions = expected.num_positions
    if positions is not None and positions > file.max_regions:
        raise ValueError(
            f"Expected max_regions of at least {positions}, the positions of the captioner's "
            f"backbone. Received: max_regions={file.max_regions}; use --max-regions {positions}"
        )


def check_regions(
    file: RegionFile,
    named: Named,
    expected: FeatureInput,
    title: str | None = None,
    record: Path | None = None,
) -> tuple[Named, list[Problem]]:
    """Reads all features once.

    Args:
        file: file of the features.
        named: examples and the names of their datasets.
        expected: shape that the captioner takes.
        title: title of a progress bar; None for no bar.
        record: file that records usable features, so that the next call does not read them again
            unless the file of features has changed; None for no file.

    Returns:
        (usable examples and the names of their datasets, problems of the others).
    """
    status = file.path.stat()
    state = [str(file.path.resolve()), status.st_size, status.st_mtime_ns, file.max_regions]
    state += [expected.feature_dim, expected.num_positions]
    known = _read_record(record, state)

    def check(item: tuple[Example, str]) -> str | None:
        try:
            if item[1] not in known:
                file.read(item[1], expected.feature_dim, expected.num_positions)
        except UnusableRegions as error:
            return str(error)
        return None

    pool = ThreadPoolExecutor(os.cpu_count() or 1)
    try:
        reasons = list(track(pool.map(check, named), len(named), title))
    finally:
        pool.shutdown(cancel_futures=True)
    usable = [item for item, reason in zip(named, reasons, strict=True) if reason is None]
    if record is not None:
        _write_record(record, state, [name for _, name in usable])
    return usable, [
        Problem(str(example.path), reason, len(example.captions))
        for (example, _), reason in zip(named, reasons, strict=True)
        if reason is not None
    ]


def _read_record(record: Path | None, state: list[Any]) -> set[str]:
    """Returns the datasets recorded as usable, if the file has not changed since."""
    try:
        content = json.loads(record.read_text(encoding="utf-8")) if record is not None else {}
        return set(content["usable"]) if content.get("file") == state else set()
    except (OSError, ValueError, AttributeError, KeyError):
        return set()


def _write_record(record: Path, state: list[Any], names: list[str]) -> None:
    record.parent.mkdir(parents=True, exist_ok=True)
    write_text_atomically(record, json.dumps({"file": state, "usable": names}))
