"""`effcap caption --features`: region features into captions."""

from __future__ import annotations

import argparse
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from effcap.tools.cli.captioning import refuse_page, sampler_fields, write_captions
from effcap.tools.cli.data_arguments import add_features, open_features
from effcap.tools.cli.terminal import start_keras

if TYPE_CHECKING:
    from effcap.caption import Caption
    from effcap.captioner import Captioner
    from effcap.samplers.base import Sampler
    from effcap.trainers.data.regions.region_file import RegionFile, UnusableRegions

SHOWN = 10  # photos told one by one


def add_regions(parser: argparse.ArgumentParser) -> None:
    """Adds the options for region features to `effcap caption`."""
    group = parser.add_argument_group("region features")
    add_features(group)
    group.add_argument(
        "--keys",
        nargs="+",
        metavar="KEY",
        help="caption these photos of --features, by COCO's id or by name (all of them)",
    )


def check_region_options(arguments: argparse.Namespace) -> None:
    """ValueError for options that do not go together."""
    if not arguments.features:
        for name in ("keys", "max_regions"):
            if vars(arguments)[name]:
                option = f"--{name.replace('_', '-')}"
                raise ValueError(f"Expected --features with {option}. Received: {option} alone")
        return
    if arguments.photos or arguments.shards:
        raise ValueError("Expected photos, --shards or --features. Received: several of them")
    refuse_page(arguments, "--features")


def run_regions(arguments: argparse.Namespace) -> None:
    """Runs `effcap caption --features`."""
    from effcap.presets import preset_folder

    fields = sampler_fields(arguments)
    preset = preset_folder(arguments.model)
    file = open_features(arguments, trained_regions(preset))
    names = find_names(file, arguments.keys)
    start_keras()
    from effcap import samplers
    from effcap.captioner import Captioner

    sampler = samplers.get(arguments.sampler, **fields)
    captioner = Captioner.from_preset(preset)
    found = caption_regions(captioner, file, list(names), sampler, arguments.batch_size)
    results = [
        {**photo_of(names[name]), "caption": options[0].text, "score": options[0].score}
        for name, options in found
    ]
    if arguments.out:
        write_captions(arguments.out, results)
        return
    for result in results:
        print(f"{result.get('image', result.get('image_id'))}\t{result['caption']}")


def trained_regions(preset: Path) -> int | None:
    """How many regions of a photo, at most, a preset was trained on, where it was told."""
    from effcap.config import read_json
    from effcap.presets import RECORD

    record = read_json(preset / RECORD) if (preset / RECORD).is_file() else {}
    return record.get("flags", {}).get("max-regions")


def find_names(file: RegionFile, keys: Sequence[str] | None) -> dict[str, str]:
    """Datasets and the keys of their photos: those asked for, or all there are.

    Raises:
        ValueError: for a key that there are no features of, or none at all.
    """
    from effcap.trainers.data.regions.region_file import keys_of

    if keys is None:
        names = {file.find([key]): key for key in file.photos()}
    else:
        names = {file.find(keys_of(key)): key for key in keys}
    if None in names:
        raise ValueError(
            f"Expected photos that {file.path} has features of, such as {file.example}. "
            f"Received: {names[None]}"
        )
    if not names:
        raise ValueError(f"Expected features of photos in {file.path}. Received: none")
    return names


def photo_of(key: str) -> dict[str, str | int]:
    """What a photo is called in results: as COCO does where it is known by COCO's id."""
    return {"image_id": int(key)} if key.isdecimal() else {"image": key}


def caption_regions(
    captioner: Captioner,
    file: RegionFile,
    names: Sequence[str],
    sampler: Sampler,
    batch_size: int,
) -> Iterator[tuple[str, list[Caption]]]:
    """Datasets that can be used and their captions, best first, under a progress bar.

    At the end the others are named and counted; ValueError when that is all of them.
    """
    from effcap.trainers.data.regions.dataset import region_channels
    from effcap.utils.progress import Bar, say

    channels, rows = region_channels(captioner), file.grid or file.limit
    skipped: list[UnusableRegions] = []
    with Bar("captioning", len(names)) as bar:
        for batch in usable(file, names, channels, batch_size, skipped):
            inputs = {"regions": file.load(batch, rows, channels)}  # (B,S,C)
            captions = captioner.generate_batch(inputs, sampler, batch_size)
            yield from zip(batch, captions, strict=True)
            bar.advance(steps=len(batch))
    for error in skipped[:SHOWN]:
        say(f"skipped: {error}")
    if skipped:
        say(f"{len(skipped)} of {len(names)} photos have features that cannot be used")
    if len(skipped) == len(names):
        raise ValueError(f"Expected features of width {channels}. Received: none that can be used")


def usable(
    file: RegionFile,
    names: Sequence[str],
    channels: int,
    batch_size: int,
    skipped: list[UnusableRegions],
) -> Iterator[list[str]]:
    """Batches of datasets that can be used; what is wrong with the others goes to `skipped`."""
    from effcap.trainers.data.regions.region_file import UnusableRegions

    batch: list[str] = []
    for name in names:
        try:
            file.read(name, channels)
        except UnusableRegions as error:
            skipped.append(error)
            continue
        batch.append(name)
        if len(batch) == batch_size:
            yield batch
            batch = []
    if batch:
        yield batch
