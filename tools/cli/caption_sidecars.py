"""Options of `effcap caption` for text files beside the photos."""

from __future__ import annotations

import argparse
from pathlib import Path

from effcap.tools.captioning.results import CaptionResults
from effcap.tools.captioning.sidecars import EXISTING, Sidecars

FIELDS = ("existing", "before", "after")


def add_sidecars(parser: argparse.ArgumentParser) -> None:
    """Adds the options of text files beside the photos to `effcap caption`."""
    group = parser.add_argument_group(
        "files beside the photos", "An interrupted run continues when it is repeated."
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
        "--existing",
        choices=EXISTING,
        help="what happens to photos whose file exists (default: skip)",
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
    for name in ("sidecar", "num_captions", "report", "min_confidence"):
        if others and getattr(arguments, name) is not None:
            option = f"--{name.replace('_', '-')}"
            raise ValueError(f"{option} requires photos. Received: --{others[0]}")
    for name in FIELDS:
        if getattr(arguments, name) is not None and arguments.sidecar is None:
            raise ValueError(f"--{name} requires --sidecar")


def make_sidecars(arguments: argparse.Namespace) -> Sidecars | None:
    """Returns the files beside the photos, or None.

    Raises:
        ValueError: the suffix is not one, or is that of a photo.
    """
    if arguments.sidecar is None:
        return None
    fields = {name: getattr(arguments, name) for name in FIELDS}
    given = {name: value for name, value in fields.items() if value is not None}
    return Sidecars(arguments.sidecar, **given)


def print_sidecars(sidecars: Sidecars, results: CaptionResults[Path]) -> None:
    """Prints how many files were written, and how many photos were left alone."""
    from effcap.utils.progress import print_line

    if results.existing:
        count = len(results.outcomes())
        print_line(
            f"captions exist for {len(results.existing)} of {count} photos; --existing says what "
            "happens to them"
        )
    print_line(f"{len(results.captions)} files {sidecars.suffix} written beside the photos")
