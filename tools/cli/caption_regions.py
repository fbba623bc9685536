"""`effcap caption --features`: captions photos from their region features."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from effcap.tools.cli.options import option_flag
from effcap.tools.cli.outputs import print_missing, print_skipped, refuse_page, write_captions
from effcap.tools.cli.sampling import (
    chosen_captioner,
    find_preset,
    make_sampler,
    sampler_fields,
    start_engine,
)


def add_features(group: Any) -> None:
    """Adds the options of region features, shared by several commands."""
    group.add_argument(
        "--features",
        type=Path,
        metavar="FILE",
        help="HDF5 file of features in place of photos, such as VisualGPT's detections.hdf5 or a "
        "file of `effcap features`: datasets <id>_features of shape (regions, feature_dim)",
    )
    group.add_argument(
        "--max-regions",
        type=int,
        metavar="N",
        help="maximum number of regions per photo (default: as in training, or 50)",
    )


def add_regions(parser: argparse.ArgumentParser) -> None:
    """Adds the options of region features to `effcap caption`."""
    group = parser.add_argument_group("region features")
    add_features(group)
    group.add_argument(
        "--keys",
        nargs="+",
        metavar="KEY",
        help="COCO ids or names of the photos to caption (default: all in --features)",
    )


def check_region_options(arguments: argparse.Namespace) -> None:
    """Raises a `ValueError` for options that cannot be combined."""
    if not arguments.features:
        for name in ("keys", "max_regions"):
            if getattr(arguments, name) is not None:
                raise ValueError(f"{option_flag(name)} requires --features")
        return
    if arguments.photos or arguments.shards:
        raise ValueError("Give only one of PHOTO, --shards and --features")
    refuse_page(arguments, "--features")


def run_regions(arguments: argparse.Namespace) -> None:
    """Runs `effcap caption --features`."""
    from effcap.tools.captioning.regions import caption_regions, find_datasets, open_regions

    sampler_fields(arguments)  # reports errors before Keras is imported
    preset = find_preset(arguments)
    file = open_regions(arguments.features, preset, arguments.max_regions)
    num_photos = len(find_datasets(file, arguments.keys))
    start_engine(arguments)
    results = caption_regions(
        file,
        chosen_captioner(arguments, preset),
        make_sampler(arguments),
        keys=arguments.keys,
        batch_size=arguments.batch_size,
    )
    entries = [
        {**photo_entry(key), "caption": captions[0].text, "score": captions[0].score}
        for key, captions in results.captions
    ]
    if arguments.out:
        write_captions(arguments.out, entries)
    else:
        for entry in entries:
            print(f"{entry.get('image', entry.get('image_id'))}\t{entry['caption']}")
    print_missing(results.captions)
    print_skipped(results.skipped, num_photos, "have features that cannot be used")


def photo_entry(key: str) -> dict[str, str | int]:
    """Returns the entry of a photo in a file of captions: its COCO id, or its name."""
    is_id = key.isascii() and key.isdecimal() and str(int(key)) == key
    return {"image_id": int(key)} if is_id else {"image": key}
