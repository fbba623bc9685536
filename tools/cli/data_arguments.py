"""The options that name training data: CSV files, JSON files, webdataset shards."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING, Any

from effcap.tools.cli.playlist_arguments import (
    add_playlist_data,
    read_playlists_of,
    takes_playlists,
)

if TYPE_CHECKING:
    from effcap.trainers.data.regions.region_file import RegionFile

CSV, JSON, SHARDS, PLAYLISTS = KINDS = ("csv", "json", "shards", "playlists")
DECODERS = ("dali", "dali-cpu", "dali-gpu", "pillow")
FILES = {
    CSV: "a photo and a caption per line",
    JSON: 'COCO\'s captions_*.json, or a list of {"image", "text"}, also one per line',
    PLAYLISTS: 'PlayNTell\'s captions [{"playlist_id", "caption"}], or such lists by split',
}


def add_data_arguments(parser: argparse.ArgumentParser, *kinds: str, regions: bool = False) -> None:
    """Adds the options of data of these kinds; with shards, held-out CSV files as well; with
    `regions`, features that take the place of photos."""
    data = parser.add_argument_group("data")
    held_out = [*kinds, *([CSV] if kinds == (SHARDS,) else [])]
    for kind in kinds:
        if kind == SHARDS:
            _add_shards(data)
        else:
            text = f"training: {FILES[kind]}"
            flags = _flags(kind, "", regions)
            data.add_argument(*flags, nargs="+", type=Path, metavar="FILE", dest=kind, help=text)
    for kind in held_out:
        if kind != SHARDS:
            flags, text = _flags(kind, "val-", regions), "held-out captions"
            dest = f"val_{kind}"
            data.add_argument(*flags, nargs="+", type=Path, metavar="FILE", dest=dest, help=text)
    if regions:
        add_features(data)
    if PLAYLISTS in kinds:
        add_playlist_data(data)
    if kinds != (PLAYLISTS,):
        data.add_argument(
            "--images", type=Path, metavar="DIR", help="folder of the photos (that of the file)"
        )
    if CSV in held_out:
        data.add_argument(
            "--image-column", default="image", metavar="NAME", help="CSV column of the photo"
        )
        data.add_argument(
            "--caption-column", default="caption", metavar="NAME", help="CSV column of the caption"
        )
    data.add_argument(
        "--tidy",
        action=argparse.BooleanOptionalAction,
        default=False,
        help="tidy the captions of files: single spaces, a capital first letter, a full stop",
    )


def _flags(kind: str, before: str, regions: bool) -> list[str]:
    """Names of an option; COCO's JSON is what comes with region features, and called as there."""
    alias = [f"--{before}annotations"] if kind == JSON and regions else []
    return [f"--{before}{kind}", *alias]


def add_features(group) -> None:
    """Adds the options that name region features."""
    group.add_argument(
        "--features",
        type=Path,
        metavar="FILE",
        help="region features in place of photos: HDF5 with <image id>_features of shape (regions, "
        "channels), as VisualGPT's detections.hdf5, or as `effcap features` writes it",
    )
    group.add_argument(
        "--max-regions",
        type=int,
        metavar="N",
        help="regions of a photo that are used, at most: the first (50)",
    )


def open_features(arguments: argparse.Namespace, usual: int | None = None) -> RegionFile | None:
    """The file of --features; None where there is no such option, or it is not given.

    Args:
        arguments: of the command.
        usual: regions of a photo where --max-regions is not given; None for 50.

    Raises:
        OSError, ValueError: as `RegionFile`.
    """
    from effcap.trainers.data.regions.region_file import MOST_REGIONS, RegionFile

    if vars(arguments).get("features") is None:
        if vars(arguments).get("max_regions") is not None:
            raise ValueError("Expected --features with --max-regions. Received: --max-regions")
        return None
    limit = usual if arguments.max_regions is None else arguments.max_regions
    return RegionFile(arguments.features, MOST_REGIONS if limit is None else limit)


def _add_shards(data) -> None:
    data.add_argument(
        "--shards",
        nargs="+",
        metavar="SHARDS",
        help="training: webdataset shards that `effcap index` has indexed: files, folders, "
        "patterns such as 'cc12m/{00000..01242}.tar', addresses (http:, https:, s3:, gs:, pipe:)",
    )
    data.add_argument("--val-shards", nargs="+", metavar="SHARDS", help="held-out shards")
    data.add_argument(
        "--index", type=Path, metavar="DIR", help="folder of the indexes (beside the shards)"
    )
    data.add_argument(
        "--passes",
        nargs="+",
        type=float,
        metavar="X",
        help="for each of --shards, how often an epoch sees its photos, to mix them: 1 4, or 0.5 2",
    )
    data.add_argument(
        "--decoder",
        choices=DECODERS,
        help="of shards; dali: on the GPU if there is one (by default dali with a GPU, else "
        "pillow, which is the faster on a CPU)",
    )
    data.add_argument(
        "--shuffle-block", type=int, metavar="N", help="photos of shards shuffled together (32768)"
    )


def missing_data(arguments: argparse.Namespace) -> str:
    """The options one of which must name training data, where none does; empty where one does."""
    kinds = _kinds(arguments)
    return "" if _given(arguments, kinds) else " or ".join(f"--{kind}" for kind in kinds)


def read_data(arguments: argparse.Namespace) -> tuple[Any, Any]:
    """(training data, validation data or None), as `effcap.trainers.run` takes them.

    Raises:
        FileNotFoundError, ValueError: as the readers do, and for data of two kinds.
    """
    given = _given(arguments, _kinds(arguments))
    held_out = _given(arguments, _kinds(arguments, "val_"))
    for names in (given, held_out):
        if len(names) > 1:
            options = " or ".join(f"--{name.replace('_', '-')}" for name in names)
            raise ValueError(f"Expected {options}. Received: both")
    if takes_playlists(arguments, [*given, *held_out]):
        return read_playlists_of(arguments)
    features = open_features(arguments)
    if features is not None and SHARDS in given:
        raise ValueError("Expected --csv or --json with --features. Received: --shards")
    training = _read(arguments, given[0], given[0], features)
    if not held_out:
        return training, None
    return training, _read(arguments, held_out[0][4:], held_out[0], features)


def _kinds(arguments: argparse.Namespace, before: str = "") -> list[str]:
    """Names of the options of data that the command has."""
    return [f"{before}{kind}" for kind in KINDS if f"{before}{kind}" in arguments]


def _given(arguments: argparse.Namespace, names) -> list[str]:
    return [name for name in names if vars(arguments)[name]]


def _read(arguments: argparse.Namespace, kind: str, name: str, features: RegionFile | None) -> Any:
    from effcap.trainers import (
        RegionData,
        photo_ids,
        read_csvs,
        read_jsons,
        read_shards,
        tidy,
    )

    files, edit = vars(arguments)[name], tidy if arguments.tidy else None
    if kind == CSV:
        columns = (arguments.image_column, arguments.caption_column)
        data = read_csvs(files, arguments.images, *columns, edit)
        return data if features is None else RegionData(*data, features)
    if kind == JSON:
        data = read_jsons(files, arguments.images, edit)
        if features is None:
            return data
        return RegionData(*data, features, photo_ids(files, arguments.images))
    passes = arguments.passes if name == SHARDS else None
    how = {"decoder": arguments.decoder, "block": arguments.shuffle_block}
    return read_shards(files, arguments.index, passes, **how)
