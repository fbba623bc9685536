"""`effcap shards`: photos with captions into webdataset shards."""

from __future__ import annotations

import argparse
import os
import re
from pathlib import Path

from effcap.tools.cli.parsing import add_config

UNITS = {"": 1, "kb": 10**3, "mb": 10**6, "gb": 10**9, "kib": 2**10, "mib": 2**20, "gib": 2**30}
CHECKED_SIZE = (224, 224)  # height and width that photos are decoded at to see whether they can be


def add_parser(commands: argparse._SubParsersAction) -> None:
    """Adds `shards`."""
    parser = commands.add_parser(
        "shards",
        help="pack photos with captions into webdataset shards",
        description="Packs the photos of CSV or JSON files, as they are, with their captions into "
        "webdataset shards. Started again after it was broken off, it goes on.",
    )
    parser.set_defaults(run=run, parser=parser)
    data = parser.add_argument_group("data")
    files = data.add_mutually_exclusive_group(required=True)
    files.add_argument(
        "--csv", nargs="+", type=Path, metavar="FILE", help="a photo and a caption per line"
    )
    files.add_argument(
        "--json",
        nargs="+",
        type=Path,
        metavar="FILE",
        help='COCO\'s captions_*.json, or a list of {"image", "text"}, also one per line',
    )
    data.add_argument(
        "--images",
        type=Path,
        metavar="DIR",
        help="folder of the photos; by default that of the file",
    )
    data.add_argument("--image-column", default="image", metavar="NAME", help="of the CSV")
    data.add_argument("--caption-column", default="caption", metavar="NAME", help="of the CSV")
    data.add_argument(
        "--tidy",
        action=argparse.BooleanOptionalAction,
        default=False,
        help="tidy captions: single spaces, a capital first letter, a full stop",
    )
    data.add_argument(
        "--max-bad",
        type=float,
        default=0.01,
        metavar="SHARE",
        help="share of the captions that may be unusable, they or their photos",
    )
    parser.add_argument(
        "--out", type=Path, required=True, metavar="DIR", help="folder for the shards"
    )
    parser.add_argument(
        "--max-count", type=int, default=10_000, metavar="N", help="most photos in a shard"
    )
    parser.add_argument(
        "--max-size", type=size, default="1GB", metavar="BYTES|1GB", help="most bytes of a shard"
    )
    parser.add_argument(
        "--processes", type=int, metavar="N", help="shards at once (one per core if not given)"
    )
    add_config(parser)


def size(text: str) -> int:
    """Bytes from text such as 500000, 300MB or 1.5GiB."""
    match = re.fullmatch(r"(\d+(?:\.\d+)?)\s*([a-z]*)", text.strip().lower())
    if match is None or match[2] not in UNITS:
        raise argparse.ArgumentTypeError(f"invalid size: {text!r}; write 500MB, 1GB or 2GiB")
    return int(float(match[1]) * UNITS[match[2]])


def run(arguments: argparse.Namespace) -> None:
    """Runs `effcap shards`."""
    from effcap.trainers import check_photos, read_csvs, read_jsons, tidy
    from effcap.trainers.data.example import check_share
    from effcap.trainers.data.shards import write_shards
    from effcap.utils.progress import Bar, say

    edit = tidy if arguments.tidy else None
    if arguments.csv:
        columns = (arguments.image_column, arguments.caption_column)
        photos, problems = read_csvs(arguments.csv, arguments.images, *columns, edit)
    else:
        photos, problems = read_jsons(arguments.json, arguments.images, edit)
    total = sum(len(photo.captions) for photo in photos)
    total += sum(problem.captions for problem in problems)
    out = arguments.out
    processes = arguments.processes if arguments.processes is not None else os.cpu_count() or 1
    record = out / ".checked.bin"
    good, unreadable = check_photos(
        photos, CHECKED_SIZE, processes, "checking photos", record=record
    )
    log = out / "left_out.txt"
    summary = check_share("given", problems + unreadable, total, arguments.max_bad, log)
    if summary:
        say(summary)
    with Bar("writing photos", len(good)) as bar:
        written = write_shards(
            good,
            out,
            arguments.max_count,
            arguments.max_size,
            processes,
            lambda count: bar.advance(steps=count),
        )
    known = f", {written.known} of them there already" if written.known else ""
    say(f"{written.samples} photos with {written.captions} captions in {len(written.shards)} "
        f"shards{known}: {out}")  # fmt: skip
    say(f"next: effcap index {out}")
