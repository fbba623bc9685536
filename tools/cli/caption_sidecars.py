"""Options of `effcap caption` for captions beside and in the photos."""

from __future__ import annotations

import argparse
from pathlib import Path

from effcap.tools.captioning.caption_writer import EXISTING, CaptionWriter, WritePlan
from effcap.tools.captioning.photo_metadata import EmbeddedCaptions, XmpSidecars
from effcap.tools.captioning.results import CaptionResults
from effcap.tools.captioning.sidecars import Sidecars

DESTINATIONS = ("xmp-sidecar", "xmp", "exif")
FIELDS = ("existing", "before", "after")


def add_sidecars(parser: argparse.ArgumentParser) -> None:
    """Adds the options of captions beside and in the photos to `effcap caption`."""
    group = parser.add_argument_group(
        "beside and in the photos", "An interrupted run continues when it is repeated."
    )
    group.add_argument(
        "--sidecar",
        nargs="?",
        const=".txt",
        metavar="SUFFIX",
        help="write the captions of dog.jpg to dog.txt beside it, one per line (default of SUFFIX: "
        ".txt)",
    )
    group.add_argument(
        "--write",
        choices=DESTINATIONS,
        help="write captions as the description in dog.jpg.xmp, or in the XMP or the EXIF of "
        "dog.jpg itself, whose pixels stay as they are",
    )
    group.add_argument(
        "--existing",
        choices=EXISTING,
        help="what happens to photos that have a caption there (default: skip)",
    )
    for name, where in (("before", "in front of"), ("after", "behind")):
        group.add_argument(
            f"--{name}",
            metavar="TEXT",
            help=f"text {where} each caption; {{name}} and {{folder}} are those of the photo",
        )


def check_sidecar_options(arguments: argparse.Namespace) -> None:
    """Raises a `ValueError` for options that cannot be combined."""
    others = [name for name in ("shards", "features", "playlist") if getattr(arguments, name)]
    for name in ("sidecar", "write", "num_captions", "report", "min_confidence"):
        if others and getattr(arguments, name) is not None:
            option = f"--{name.replace('_', '-')}"
            raise ValueError(f"{option} requires photos. Received: --{others[0]}")
    if arguments.sidecar is not None and arguments.write is not None:
        raise ValueError("Give only one of --sidecar and --write")
    for name in FIELDS:
        given = getattr(arguments, name) is not None
        if given and arguments.sidecar is None and arguments.write is None:
            raise ValueError(f"--{name} requires --sidecar or --write")


def make_writer(arguments: argparse.Namespace) -> CaptionWriter | None:
    """Returns what writes captions beside or into the photos, or None.

    Raises:
        ValueError: the suffix is not one, or is that of a photo.
    """
    fields = {name: getattr(arguments, name) for name in FIELDS}
    given = {name: value for name, value in fields.items() if value is not None}
    if arguments.sidecar is not None:
        return Sidecars(arguments.sidecar, **given)
    if arguments.write == "xmp-sidecar":
        return XmpSidecars(**given)
    return None if arguments.write is None else EmbeddedCaptions(arguments.write, **given)


def print_written(plan: WritePlan, results: CaptionResults[Path]) -> None:
    """Prints how many captions were written, and how many photos were left alone."""
    from effcap.utils.progress import print_line

    if results.existing:
        count = len(results.outcomes())
        print_line(
            f"captions exist for {len(results.existing)} of {count} photos; --existing says what "
            "happens to them"
        )
    print_line(f"{len(results.captions)} {plan.writer.where}")
