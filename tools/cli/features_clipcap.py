"""`effcap features --clipcap`: converts ClipCap's files of CLIP vectors and captions."""

from __future__ import annotations

import argparse
import shlex
from collections.abc import Iterable
from pathlib import Path

from effcap.tools.cli.features_playlists import TRACK_SOURCES
from effcap.tools.cli.options import option_flag
from effcap.tools.cli.outputs import check_file

# CLIP's networks by the width of their vectors, with height and width of their photos.
NETWORKS = {512: ("clip_vit_b32", (224, 224)), 640: ("clip_rn50x4", (288, 288))}
PHOTO_OPTIONS = (
    "photos",
    "csv",
    "annotations",
    "images",
    "backbone",
    "model",
    "backbone_weights",
    "output",
    "image_size",
    "fit",
    "playlist",
    *TRACK_SOURCES.values(),
)


def add_clipcap(parser: argparse.ArgumentParser) -> None:
    """Adds the option of ClipCap's files to `effcap features`."""
    group = parser.add_argument_group("ClipCap")
    group.add_argument(
        "--clipcap",
        type=Path,
        metavar="FILE",
        help="pickle of ClipCap's parse_coco.py or parse_conceptual.py to convert, in place of "
        "photos; nothing in it is run. Captions are written beside --out with the suffix .json",
    )


def run_clipcap(arguments: argparse.Namespace) -> None:
    """Runs `effcap features --clipcap`."""
    for name in PHOTO_OPTIONS:
        if getattr(arguments, name):
            option = "PHOTO" if name == "photos" else option_flag(name)
            raise ValueError(f"{option} cannot be used with --clipcap")
    if arguments.out is None:
        raise ValueError("--clipcap requires --out FILE")
    check_file(arguments.out, "--out")
    from effcap.tools.features.feature_arrays import convert_clipcap
    from effcap.utils.progress import print_line

    written = convert_clipcap(arguments.clipcap, arguments.out, dtype=arguments.dtype)
    if written.num_ambiguous:
        print_line(
            f"{written.num_ambiguous} photos have several vectors that differ; the first one of "
            "each was written"
        )
    print_line(
        f"vectors of {written.num_photos} photos, width {written.feature_dim}: {written.path}"
    )
    print_line(f"{written.num_captions} captions: {written.captions_path}")
    network, size = NETWORKS.get(written.feature_dim, ("NETWORK", None))
    options = ["--features", written.path, "--json", written.captions_path]
    print_line(f"next: {training_command(options, network, size)} ...")


def training_command(
    options: Iterable[object],
    network: str,
    image_size: tuple[int, int] | None,
    weights: str = "FILE",
) -> str:
    """Returns a command that trains ClipCap on vectors of CLIP.

    Args:
        options: options of the data.
        network: name of the network that computed the vectors.
        image_size: height and width of its photos; None for a placeholder.
        weights: file of its weights.
    """
    size = "HEIGHT,WIDTH" if image_size is None else ",".join(map(str, image_size))
    settings = {"network": network, "image_size": f"[{size}]", "output": "embedding"}
    words = ["effcap", "train", "regions", *map(str, options), "--model", "clipcap-mlp"]
    for name, value in settings.items():
        words += ["--set", f"encoder.backbone.{name}={value}"]
    return f"{shlex.join(words)} --backbone-weights {weights}"
