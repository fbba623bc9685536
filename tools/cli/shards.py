"""`effcap shards`: packs photos with captions into webdataset shards."""

from __future__ import annotations

import argparse
import os
import re
from pathlib import Path

from effcap.tools.cli.data_options import (
    add_cleaning,
    add_columns,
    add_images,
    caption_edit,
    columns,
)
from effcap.tools.cli.options import add_options
from effcap.tools.cli.parsing import add_config

UNITS = {"": 1, "kb": 10**3, "mb": 10**6, "gb": 10**9, "kib": 2**10, "mib": 2**20, "gib": 2**30}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the arguments of `effcap shards`."""
    from effcap.trainers.options import RunOptions

    parser.description = (
        "Packs the unchanged photo files of CSV files, JSON files or folders, with captions, into "
        "webdataset shards. An interrupted run continues when it is repeated."
    )
    data = parser.add_argument_group("data")
    files = data.add_mutually_exclusive_group(required=True)
    files.add_argument(
        "--csv",
        nargs="+",
        type=Path,
        metavar="FILE",
        help="CSV files with a photo and a caption per line",
    )
    files.add_argument(
        "--json",
        nargs="+",
        type=Path,
        metavar="FILE",
        help='JSON file: COCO\'s captions_*.json, a list of {"image", "text"}, or JSON Lines',
    )
    files.add_argument(
        "--folder",
        nargs="+",
        type=Path,
        metavar="DIR",
        help="folders of photos with captions, as for effcap train folder",
    )
    add_images(data)
    add_columns(data)
    add_cleaning(data)
    add_options(data, RunOptions, ("max_bad",))
    parser.add_argument(
        "--out", type=Path, required=True, metavar="DIR", help="folder of the shards"
    )
    parser.add_argument(
        "--max-count",
        type=int,
        default=10_000,
        metavar="N",
        help="maximum number of photos per shard",
    )
    parser.add_argument(
        "--max-size",
        type=parse_size,
        default="1GB",
        metavar="BYTES|1GB",
        help="maximum number of bytes per shard",
    )
    parser.add_argument(
        "--processes",
        type=int,
        metavar="N",
        help="shards written at the same time (default: one per core)",
    )
    add_config(parser)


def parse_size(text: str) -> int:
    """Returns the number of bytes of a text such as 500000, 300MB or 1.5GiB."""
    match = re.fullmatch(r"(\d+(?:\.\d+)?)\s*([a-z]*)", text.strip().lower())
    if match is None or match[2] not in UNITS:
        raise argparse.ArgumentTypeError(f"invalid size: {text!r}; write 500MB, 1GB or 2GiB")
    return int(float(match[1]) * UNITS[match[2]])


def run(arguments: argparse.Namespace) -> None:
    """Runs `effcap shards`."""
    from effcap.tools.shards import write_shards
    from effcap.trainers.data.csv_reader import read_csv
    from effcap.trainers.data.folder_reader import read_folder
    from effcap.trainers.data.json_reader import read_json
    from effcap.utils.progress import print_line

    edit = caption_edit(arguments)
    if arguments.csv:
        dataset = read_csv(arguments.csv, arguments.images, edit=edit, **columns(arguments))
    elif arguments.json:
        dataset = read_json(arguments.json, arguments.images, edit=edit)
    else:
        dataset = read_folder(arguments.folder, edit=edit)
    processes = arguments.processes if arguments.processes is not None else os.cpu_count() or 1
    summary = write_shards(
        dataset,
        arguments.out,
        max_count=arguments.max_count,
        max_size=arguments.max_size,
        max_bad=arguments.max_bad,
        num_processes=processes,
    )
    if summary.left_out:
        print_line(summary.left_out)
    existing = f", {summary.num_existing} of them written earlier" if summary.num_existing else ""
    print_line(
        f"{summary.num_samples} photos with {summary.num_captions} captions in "
        f"{len(summary.shards)} shards{existing}: {arguments.out}"
    )
    print_line(f"next: effcap index {arguments.out}")
