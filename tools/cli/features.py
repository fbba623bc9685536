"""`effcap features`: what a vision network sees of photos, into a file of region features."""

from __future__ import annotations

import argparse
import os
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from effcap.tools.cli.captioning import readable
from effcap.tools.cli.parsing import add_config
from effcap.tools.cli.playlist_features import (
    add_playlists,
    run_playlists,
    takes_playlists,
)
from effcap.tools.cli.terminal import start_keras

if TYPE_CHECKING:
    import numpy as np

    from effcap.backbones.backbone import Backbone
    from effcap.images import UnreadablePhoto

DTYPES = ("float32", "float16")
FITS = ("squash", "crop", "pad")


def add_parser(commands: argparse._SubParsersAction) -> None:
    """Adds `features`."""
    parser = commands.add_parser(
        "features",
        help="write features of photos or of playlists, to train on",
        description="Writes what a vision network sees of photos: of each photo a grid of places "
        "as regions, in the form of VisualGPT's detections.hdf5, for effcap train regions. Called "
        "again, it goes on where it was broken off, and adds photos to a file it wrote. Or writes "
        "features of the tracks of playlists.",
    )
    parser.set_defaults(run=run, parser=parser)
    data = parser.add_argument_group("photos")
    data.add_argument("photos", nargs="*", metavar="PHOTO", help="file, folder, or pattern")
    data.add_argument(
        "--csv", nargs="+", type=Path, metavar="FILE", help="the photos of CSV files with captions"
    )
    data.add_argument(
        "--annotations",
        nargs="+",
        type=Path,
        metavar="FILE",
        help="the photos of COCO's captions_*.json, or of other JSON with captions",
    )
    data.add_argument(
        "--images", type=Path, metavar="DIR", help="folder of the photos (that of the file)"
    )
    data.add_argument("--image-column", default="image", metavar="NAME", help="column of the photo")
    data.add_argument(
        "--caption-column", default="caption", metavar="NAME", help="column of the caption"
    )
    network = parser.add_argument_group("network")
    network.add_argument(
        "--backbone", metavar="NETWORK", help="by name, such as efficientnet_lite0 (see README)"
    )
    network.add_argument(
        "--model", metavar="PRESET", help="in place of --backbone: that of a trained captioner"
    )
    network.add_argument(
        "--backbone-weights",
        metavar="imagenet|none|FILE",
        help="weights of --backbone (imagenet if not given)",
    )
    network.add_argument(
        "--image-size",
        nargs=2,
        type=int,
        metavar=("HEIGHT", "WIDTH"),
        help="in pixels (the network's own if not given); smaller photos make smaller grids",
    )
    network.add_argument("--fit", choices=FITS, help="of photos of another shape (squash)")
    add_playlists(parser)
    parser.add_argument("--out", type=Path, metavar="FILE", help="HDF5 file to write or to add to")
    parser.add_argument("--dtype", choices=DTYPES, default=DTYPES[0], help="of the features")
    parser.add_argument("--batch-size", type=int, default=16, metavar="N", help="photos at once")
    add_config(parser)


def run(arguments: argparse.Namespace) -> None:
    """Runs `effcap features`."""
    if takes_playlists(arguments):
        run_playlists(arguments)
        return
    check(arguments)
    photos = find_keys(arguments)
    if arguments.model:
        from effcap.presets import preset_folder

        preset_folder(arguments.model)
    start_keras()
    from effcap.trainers.data.regions.region_file import MOST_REGIONS
    from effcap.trainers.data.regions.region_writer import RegionParts
    from effcap.utils.progress import say, track

    backbone = make_backbone(arguments)
    grid, channels = backbone.feature_shape
    skipped: list[UnreadablePhoto] = []
    with RegionParts(arguments.out, describe(backbone, arguments.dtype)) as parts:
        missing = {path: key for key, path in photos.items() if key not in parts.keys}
        if len(missing) < len(photos):
            say(f"{len(photos) - len(missing)} of {len(photos)} photos are there already")
        try:
            for path, features in features_of(backbone, missing, arguments, skipped):
                parts.add(missing[path], features)
        except KeyboardInterrupt:
            kept = f"stopped with features of {len(parts.keys)} photos"
            raise KeyboardInterrupt(f"{kept}; the same command goes on") from None
        parts.finish(lambda keys, total: track(keys, total, f"writing {arguments.out.name}"))
    for error in skipped:
        say(f"skipped: {error}")
    if skipped:
        say(f"{len(skipped)} of {len(photos)} photos could not be read")
    if len(skipped) == len(photos):
        raise ValueError(f"Expected at least one readable photo. Received: {len(photos)} others")
    say(f"features of {grid} places, each of width {channels}: {arguments.out}")
    limit = f" --max-regions {grid}" if grid > MOST_REGIONS else ""
    say(
        f"next: effcap train regions --features {arguments.out}{limit} "
        f"--set encoder.channels={channels} ..."
    )


def check(arguments: argparse.Namespace) -> None:
    """Raises a ValueError for options that do not agree."""
    sources = [bool(arguments.photos), bool(arguments.csv), bool(arguments.annotations)]
    if sum(sources) != 1:
        raise ValueError(
            "Expected one of PHOTO ..., --csv and --annotations. "
            f"Received: {'several' if any(sources) else 'none'}"
        )
    if bool(arguments.backbone) == bool(arguments.model):
        given = "both" if arguments.model else "neither"
        raise ValueError(f"Expected --backbone or --model. Received: {given}")
    if arguments.model:
        for name in ("backbone_weights", "image_size", "fit"):
            if vars(arguments)[name] is not None:
                raise ValueError(f"Expected no --{name.replace('_', '-')}: the model has its own")
    if arguments.out is None:
        raise ValueError("Expected --out FILE. Received: nothing to write to")
    if arguments.out.is_dir():
        raise IsADirectoryError(f"Expected a file to write. Received: {arguments.out}, a folder")
    if arguments.batch_size < 1:
        raise ValueError(f"Expected --batch-size of at least 1. Received: {arguments.batch_size}")


def find_keys(arguments: argparse.Namespace) -> dict[str, Path]:
    """The photos by the keys of their features.

    Raises:
        ValueError: when two photos would have the same key.
    """
    from effcap.trainers.data.regions.region_file import key_to_write

    photos: dict[str, Path] = {}
    for path, name, number in name_photos(arguments):
        key = key_to_write(name, number)
        if photos.setdefault(key, path) != path:
            raise ValueError(
                "Expected photos whose names differ, as their features are called by them. "
                f"Received: {photos[key]} and {path}; name them with their folders, in a CSV file"
            )
    return photos


def name_photos(arguments: argparse.Namespace) -> Iterable[tuple[Path, str, str | None]]:
    """(file, name, COCO's id or None) of each photo; says what is wrong with others."""
    if arguments.photos:
        from effcap.utils.find_files import find_photos

        return ((path, path.name, None) for path in find_photos(arguments.photos))
    from effcap.trainers import photo_ids, read_csvs, read_jsons
    from effcap.trainers.data.example import check_share
    from effcap.utils.progress import say

    ids: dict[str, str] = {}
    if arguments.csv:
        columns = (arguments.image_column, arguments.caption_column)
        photos, problems = read_csvs(arguments.csv, arguments.images, *columns)
    else:
        photos, problems = read_jsons(arguments.annotations, arguments.images)
        ids = photo_ids(arguments.annotations, arguments.images)
    total = sum(len(photo.captions) for photo in photos) + sum(p.captions for p in problems)
    if not photos:
        raise ValueError("Expected photos with captions. Received: none")
    summary = check_share("photo", problems, total, 1.0)
    if summary:
        say(summary)
    return ((photo.path, photo.name, ids.get(os.path.abspath(photo.path))) for photo in photos)


def make_backbone(arguments: argparse.Namespace) -> Backbone:
    """The network asked for, with its weights."""
    from effcap.backbones.backbone import Backbone
    from effcap.captioner import Captioner
    from effcap.weights.backbone_weights import check_backbone_weights, load_backbone_weights

    if arguments.model:
        encoder = Captioner.from_preset(arguments.model).encoder
        backbone = getattr(encoder, "backbone", None)
        if backbone is None:
            raise ValueError(
                f"Expected a captioner of photos. Received: {arguments.model}, one of "
                f"{' and '.join(encoder.input_keys)}"
            )
        return backbone
    check_backbone_weights(arguments.backbone_weights)
    backbone = Backbone(arguments.backbone, arguments.image_size, fit=arguments.fit or FITS[0])
    load_backbone_weights(backbone, arguments.backbone_weights)
    return backbone


def describe(backbone: Backbone, dtype: str) -> dict[str, Any]:
    """What the file says of how its features were made."""
    from effcap.trainers.data.feature_cache import fingerprint
    from effcap.trainers.data.regions.region_file import GRID

    named = isinstance(backbone.network, str)
    return {
        "network": backbone.network if named else "a Keras model",
        "image_size": list(backbone.image_size),
        "fit": backbone.fit,
        GRID: backbone.feature_shape[0],
        "channels": backbone.feature_shape[1],
        "dtype": dtype,
        "fingerprint": fingerprint(backbone),
    }


def features_of(
    backbone: Backbone, paths: Iterable[Path], arguments: argparse.Namespace, skipped: list
) -> Iterable[tuple[Path, np.ndarray]]:
    """Photos that can be read, and their features (S, C), under a progress bar."""
    import numpy as np

    from effcap.generation import pad_rows
    from effcap.trainers.data.feature_cache import FeatureProgram
    from effcap.utils.progress import Bar

    paths = list(paths)
    if not paths:
        return
    program = FeatureProgram(backbone)
    with Bar("features", len(paths)) as bar:
        for batch in readable(paths, backbone, arguments.batch_size, skipped):
            images = np.stack([image for _, image in batch])  # (B,h,w,3)
            outputs = program.predict_on_batch(pad_rows(images, arguments.batch_size))  # (B,S,C)
            with np.errstate(over="ignore"):
                outputs = outputs.astype(arguments.dtype)
            if not np.isfinite(outputs).all():
                raise ValueError(
                    f"Expected features that {arguments.dtype} can hold. Received: infinite ones "
                    f"from {backbone.net.name}; use --dtype float32, or other weights"
                )
            yield from zip([path for path, _ in batch], outputs[: len(batch)], strict=True)
            bar.advance(steps=len(batch))
