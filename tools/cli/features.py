"""`effcap features`: writes features of photos or playlists to train on."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING, Any, get_args

from effcap.images import Fit
from effcap.tools.cli.data_options import add_columns, add_images, columns
from effcap.tools.cli.features_clipcap import add_clipcap, run_clipcap, training_command
from effcap.tools.cli.features_playlists import (
    add_playlists,
    run_playlists,
    takes_playlists,
)
from effcap.tools.cli.options import option_flag
from effcap.tools.cli.outputs import check_file, print_skipped
from effcap.tools.cli.parsing import add_config
from effcap.tools.cli.sampling import find_preset
from effcap.tools.cli.terminal import start_keras

if TYPE_CHECKING:
    from effcap.backbones.backbone import Backbone

DTYPES = ("float32", "float16")
TOKENS, EMBEDDING = OUTPUTS = ("tokens", "embedding")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the arguments of `effcap features`."""
    parser.description = (
        "Writes a vision network's feature map of each photo, in the format of VisualGPT's "
        "detections.hdf5, for `effcap train regions`; converts ClipCap's files to it; or writes "
        "features of playlists. Features that are already in the file are not computed again, also "
        "after an interruption."
    )
    data = parser.add_argument_group("photos")
    data.add_argument("photos", nargs="*", metavar="PHOTO", help="file, folder, or pattern")
    data.add_argument(
        "--csv", nargs="+", type=Path, metavar="FILE", help="CSV files of photos with captions"
    )
    data.add_argument(
        "--annotations",
        nargs="+",
        type=Path,
        metavar="FILE",
        help="COCO's captions_*.json, or other JSON of photos with captions",
    )
    add_images(data)
    add_columns(data)
    network = parser.add_argument_group("network")
    network.add_argument(
        "--backbone",
        metavar="NETWORK",
        help="name of a network, such as efficientnet_lite0 or clip_vit_b32",
    )
    network.add_argument(
        "--model",
        metavar="PRESET",
        help="preset whose backbone to use, also as hf://USER/NAME, in place of --backbone",
    )
    network.add_argument(
        "--backbone-weights",
        metavar="imagenet|none|FILE|PRESET",
        help="weights of --backbone (default: imagenet; CLIP and Swin need a path)",
    )
    network.add_argument(
        "--output",
        choices=OUTPUTS,
        help="all features of --backbone, or the one vector that CLIP compares to text "
        "(default: tokens)",
    )
    network.add_argument(
        "--image-size",
        nargs=2,
        type=int,
        metavar=("HEIGHT", "WIDTH"),
        help="size of photos in pixels (default: the network's own)",
    )
    network.add_argument(
        "--fit",
        choices=get_args(Fit),
        help="how photos of another aspect ratio are resized (default: the network's own)",
    )
    add_clipcap(parser)
    add_playlists(parser)
    parser.add_argument(
        "--out",
        type=Path,
        metavar="FILE",
        help="HDF5 file to write or to add to; with --playlist, a folder",
    )
    parser.add_argument(
        "--dtype", choices=DTYPES, default=DTYPES[0], help="type of the stored features"
    )
    parser.add_argument("--batch-size", type=int, default=16, metavar="N", help="photos per batch")
    add_config(parser)


def run(arguments: argparse.Namespace) -> None:
    """Runs `effcap features`."""
    if arguments.clipcap:
        run_clipcap(arguments)
        return
    if takes_playlists(arguments):
        run_playlists(arguments)
        return
    check(arguments)
    photos = find_photo_keys(arguments)
    preset = find_preset(arguments) if arguments.model else None
    start_keras()
    from effcap.tools.features.photos import write_features
    from effcap.trainers.data.regions.region_file import MAX_REGIONS
    from effcap.utils.progress import print_line

    network: Any = preset or make_backbone(arguments)
    written = write_features(
        photos,
        network,
        arguments.out,
        dtype=arguments.dtype,
        batch_size=arguments.batch_size,
    )
    if written.num_existing:
        print_line(f"{written.num_existing} of {len(photos)} photos were in the file already")
    print_skipped(written.skipped, len(photos), "cannot be read")
    print_line(
        f"features of {written.num_positions} positions and width {written.feature_dim}: "
        f"{written.path}"
    )
    if arguments.output == EMBEDDING:
        options = ["--features", written.path]
        weights = arguments.backbone_weights
        command = training_command(options, arguments.backbone, network.image_size, weights)
        print_line(f"next: {command} ...")
        return
    num_positions = written.num_positions
    regions = f" --max-regions {num_positions}" if num_positions > MAX_REGIONS else ""
    print_line(
        f"next: effcap train regions --features {written.path}{regions} "
        f"--set encoder.feature_dim={written.feature_dim} ..."
    )


def check(arguments: argparse.Namespace) -> None:
    """Raises a `ValueError` for options in conflict or missing ones."""
    sources = [name for name in ("photos", "csv", "annotations") if getattr(arguments, name)]
    if len(sources) != 1:
        received = " and ".join(sources) or "none"
        raise ValueError(f"Give one of PHOTO ..., --csv and --annotations. Received: {received}")
    if bool(arguments.backbone) == bool(arguments.model):
        received = "both" if arguments.model else "neither"
        raise ValueError(f"Give either --backbone or --model. Received: {received}")
    if arguments.model:
        for name in ("backbone_weights", "output", "image_size", "fit"):
            if getattr(arguments, name) is not None:
                raise ValueError(f"{option_flag(name)} cannot be used with --model")
    if arguments.out is None:
        raise ValueError("--out FILE is required")
    check_file(arguments.out, "--out")
    if arguments.batch_size < 1:
        raise ValueError(f"Expected --batch-size of at least 1. Received: {arguments.batch_size}")


def find_photo_keys(arguments: argparse.Namespace) -> dict[str, Path]:
    """Returns the photos by the keys of their features, and prints problems of caption files."""
    from effcap.tools.features.photo_keys import dataset_keys, find_keys

    if arguments.photos:
        return find_keys(arguments.photos)
    from effcap.trainers.data.csv_reader import read_csv
    from effcap.trainers.data.example import check_problems
    from effcap.trainers.data.json_reader import read_json
    from effcap.trainers.data.regions.dataset import read_coco_ids
    from effcap.utils.progress import print_line

    ids: dict[str, str] = {}
    if arguments.csv:
        dataset = read_csv(arguments.csv, arguments.images, **columns(arguments))
    else:
        dataset = read_json(arguments.annotations, arguments.images)
        ids = read_coco_ids(arguments.annotations, arguments.images)
    keys = dataset_keys(dataset, ids)
    summary = check_problems("photo", dataset.problems, dataset.num_captions, max_bad=1.0)
    if summary:
        print_line(summary)
    return keys


def make_backbone(arguments: argparse.Namespace) -> Backbone:
    """Returns the network of --backbone with its weights."""
    from effcap.backbones.backbone import Backbone
    from effcap.conversion.backbone_weights import check_backbone_weights, load_backbone_weights
    from effcap.utils.progress import print_line

    check_backbone_weights(arguments.backbone_weights)
    backbone = Backbone(
        arguments.backbone,
        arguments.image_size,
        fit=arguments.fit,
        output=arguments.output or TOKENS,
    )
    for line in (load_backbone_weights(backbone, arguments.backbone_weights) or "").splitlines():
        print_line(line)
    return backbone
