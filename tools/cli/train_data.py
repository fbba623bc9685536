"""Data options of `effcap train` for each source, and the reading of the data."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from effcap.tools.cli.caption_regions import add_features
from effcap.tools.cli.data_options import (
    COLUMNS,
    add_cleaning,
    add_columns,
    add_images,
    caption_edit,
    columns,
)
from effcap.tools.cli.dataset_options import (
    add_dataset,
    add_validation_dataset,
    check_dataset_options,
    read_training_splits,
)
from effcap.tools.cli.options import add_options, option_flag
from effcap.tools.cli.train_playlists import add_playlist_data, read_playlist_data

if TYPE_CHECKING:
    from effcap.trainers.data.dataset import CaptionDataset
    from effcap.trainers.data.photos import PhotoDataset

Datasets = tuple["CaptionDataset", "CaptionDataset | None"]

# Sources of data with the options that name files to train on; one of them is required.
SOURCES = {
    "csv": ("csv",),
    "json": ("json", "dataset"),
    "folder": ("folder",),
    "dali": ("shards",),
    "regions": ("csv", "json"),
    "playlists": ("playlists",),
}
FILES = {
    "csv": "CSV files to train on, one caption per line",
    "json": 'JSON files to train on: COCO\'s captions_*.json, or records {"image", "text"}',
    "folder": "folders of photos to train on, with metadata.jsonl or metadata.csv (file_name, "
    "text), or with a caption per line in NAME.txt or NAME.caption beside each photo",
    "playlists": 'JSON files to train on: [{"playlist_id", "caption"}], or such lists by split',
}
# Captions of shards are cleaned before training.
INDEXED = "; those of --val-csv only: captions of shards are cleaned by `effcap index`"


def add_data(parser: argparse.ArgumentParser, source: str) -> None:
    """Adds the options of the data."""
    group = parser.add_argument_group("data")
    for name in SOURCES[source]:
        if name == "shards":
            add_shards(group)
        elif name == "dataset":
            add_dataset(group, "--json")
            add_validation_dataset(group)
        else:
            add_files(group, name, FILES[name], annotations=source == "regions")
            validation = "validation folders" if name == "folder" else "validation files"
            add_files(group, f"val_{name}", validation, annotations=source == "regions")
    if source == "dali":
        add_files(group, "val_csv", "CSV files of validation photos, in place of --val-shards")
    if source == "regions":
        add_features(group)
    if source == "playlists":
        add_playlist_data(group)
    elif source != "folder":
        add_images(group)
    if source in ("csv", "dali", "regions"):
        add_columns(group)
    if source == "json":
        add_columns(group, table="")
    add_cleaning(group, INDEXED if source == "dali" else "")
    add_prefix(group)
    add_fractions(group)


def add_files(group: Any, name: str, text: str, annotations: bool = False) -> None:
    """Adds an option for files or folders; JSON files may be called annotations, as COCO does."""
    names = [name, name.replace("json", "annotations")] if annotations else [name]
    flags = [option_flag(flag) for flag in dict.fromkeys(names)]
    metavar = "DIR" if "folder" in name else "FILE"
    group.add_argument(*flags, nargs="+", type=Path, metavar=metavar, dest=name, help=text)


def add_shards(group: Any) -> None:
    """Adds the options of webdataset shards."""
    from effcap.trainers.data.shards.image_decoder import IMAGE_DECODERS

    group.add_argument(
        "--shards",
        nargs="+",
        metavar="SHARDS",
        help="indexed webdataset shards to train on: files, folders, patterns such as "
        "'cc12m/{00000..01242}.tar', URLs (http:, https:, s3:, gs:, pipe:)",
    )
    group.add_argument("--val-shards", nargs="+", metavar="SHARDS", help="validation shards")
    group.add_argument(
        "--index", type=Path, metavar="DIR", help="folder of the indexes (default: beside shards)"
    )
    group.add_argument(
        "--passes",
        nargs="+",
        type=float,
        metavar="X",
        help="passes per epoch over each of --shards, to mix them, such as 1 4 or 0.5 2",
    )
    group.add_argument(
        "--image-decoder",
        choices=IMAGE_DECODERS,
        help="decoder of photos (default: dali if there is a GPU, otherwise pillow)",
    )
    group.add_argument(
        "--shuffle-block",
        type=int,
        metavar="N",
        help="photos shuffled together (default: 32768, or 2048 for remote shards)",
    )


def add_prefix(group: Any) -> None:
    """Adds --prefix."""
    from effcap.trainers.options import RunOptions

    add_options(group, RunOptions, ("prefix",), metavars={"prefix": "TEXT"}, unset="{}")


def add_fractions(group: Any) -> None:
    """Adds --train-fraction and --max-bad."""
    from effcap.trainers.options import RunOptions

    add_options(group, RunOptions, ("train_fraction", "max_bad"))


def missing_data(arguments: argparse.Namespace) -> str:
    """Returns the options of which one is required, or "" if one is set."""
    names = SOURCES[arguments.source]
    if any(getattr(arguments, name) for name in names):
        return ""
    return " or ".join(f"--{name}" for name in names)


def read_data(arguments: argparse.Namespace) -> Datasets:
    """Returns the training data and the validation data, if there are any.

    Raises:
        FileNotFoundError: a file does not exist.
        ValueError: a file has another format, or options are in conflict.
    """
    return READERS[arguments.source](arguments)


def read_csv_files(arguments: argparse.Namespace, paths: Sequence[Path]) -> PhotoDataset:
    """Reads CSV files."""
    from effcap.trainers import read_csv

    edit = caption_edit(arguments)
    return read_csv(paths, arguments.images, edit=edit, **columns(arguments))


def read_csv_data(arguments: argparse.Namespace) -> Datasets:
    """Reads the data of `effcap train csv`."""
    validation = read_csv_files(arguments, arguments.val_csv) if arguments.val_csv else None
    return read_csv_files(arguments, arguments.csv), validation


def read_json_data(arguments: argparse.Namespace) -> Datasets:
    """Reads the data of `effcap train json`."""
    from effcap.trainers import read_json

    check_one(arguments, ("json", "dataset"))
    check_dataset_options(arguments, ("split", "val_dataset", "val_split", *COLUMNS))
    if arguments.dataset:
        if arguments.val_json:
            raise ValueError("Give --val-split or --val-dataset with --dataset, not --val-json")
        return read_training_splits(arguments)
    edit = caption_edit(arguments)
    training = read_json(arguments.json, arguments.images, edit=edit)
    if not arguments.val_json:
        return training, None
    return training, read_json(arguments.val_json, arguments.images, edit=edit)


def read_folder_data(arguments: argparse.Namespace) -> Datasets:
    """Reads the data of `effcap train folder`.

    Raises:
        ValueError: a validation folder is in a training folder.
    """
    from effcap.trainers import read_folder

    for folder in arguments.val_folder or ():
        parents = [folder.resolve(), *folder.resolve().parents]
        if outer := [path for path in arguments.folder if path.resolve() in parents]:
            raise ValueError(
                "Expected --val-folder outside of --folder, which would train on its photos. "
                f"Received: {folder} in {outer[0]}"
            )
    edit = caption_edit(arguments)
    training = read_folder(arguments.folder, edit=edit)
    return training, read_folder(arguments.val_folder, edit=edit) if arguments.val_folder else None


def read_shard_data(arguments: argparse.Namespace) -> Datasets:
    """Reads the data of `effcap train dali`."""
    from effcap.trainers import read_shards

    options = {
        "image_decoder": arguments.image_decoder,
        "shuffle_block": arguments.shuffle_block,
    }
    check_one(arguments, ("val_csv", "val_shards"))
    if caption_edit(arguments) and not arguments.val_csv:
        name = "plain" if arguments.plain else "tidy"
        raise ValueError(
            f"--{name} requires --val-csv. To clean the captions of shards, index the shards with "
            f"`effcap index --{name}`"
        )
    training = read_shards(arguments.shards, arguments.index, arguments.passes, **options)
    if arguments.val_csv:
        return training, read_csv_files(arguments, arguments.val_csv)
    if arguments.val_shards:
        return training, read_shards(arguments.val_shards, arguments.index, **options)
    return training, None


def read_region_data(arguments: argparse.Namespace) -> Datasets:
    """Reads the data of `effcap train regions`."""
    from effcap.trainers import RegionDataset, read_coco_ids, read_json
    from effcap.trainers.data.regions.region_file import MAX_REGIONS, RegionFile

    check_one(arguments, ("csv", "json"))
    check_one(arguments, ("val_csv", "val_json"))
    limit = arguments.max_regions
    file = RegionFile(arguments.features, MAX_REGIONS if limit is None else limit)

    def read(prefix: str) -> RegionDataset:
        if paths := getattr(arguments, f"{prefix}csv"):
            photos, ids = read_csv_files(arguments, paths), {}
        else:
            paths = getattr(arguments, f"{prefix}json")
            photos = read_json(paths, arguments.images, edit=caption_edit(arguments))
            ids = read_coco_ids(paths, arguments.images)
        return RegionDataset(photos.examples, photos.problems, file, ids)

    has_validation = arguments.val_csv or arguments.val_json
    return read(""), read("val_") if has_validation else None


def check_one(arguments: argparse.Namespace, names: Sequence[str]) -> None:
    """Raises a `ValueError` if several of the options are given."""
    if sum(bool(getattr(arguments, name)) for name in names) > 1:
        options = " or ".join(map(option_flag, names))
        raise ValueError(f"Give {options}, not both")


READERS: dict[str, Callable[[argparse.Namespace], Datasets]] = {
    "csv": read_csv_data,
    "json": read_json_data,
    "folder": read_folder_data,
    "dali": read_shard_data,
    "regions": read_region_data,
    "playlists": read_playlist_data,
}
