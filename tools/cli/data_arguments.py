"""The options that name training data: CSV files, JSON files, webdataset shards."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

CSV, JSON, SHARDS = KINDS = ("csv", "json", "shards")
DECODERS = ("dali", "dali-cpu", "dali-gpu", "pillow")
FILES = {
    CSV: "a photo and a caption per line",
    JSON: 'COCO\'s captions_*.json, or a list of {"image", "text"}, also one per line',
}


def add_data_arguments(parser: argparse.ArgumentParser, *kinds: str) -> None:
    """Adds the options of data of these kinds; with shards, held-out CSV files as well."""
    data = parser.add_argument_group("data")
    held_out = [*kinds, *([CSV] if kinds == (SHARDS,) else [])]
    for kind in kinds:
        if kind == SHARDS:
            _add_shards(data)
        else:
            data.add_argument(
                f"--{kind}", nargs="+", type=Path, metavar="FILE", help=f"training: {FILES[kind]}"
            )
    for kind in held_out:
        if kind != SHARDS:
            data.add_argument(
                f"--val-{kind}", nargs="+", type=Path, metavar="FILE", help="held-out captions"
            )
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
    training = _read(arguments, given[0], given[0])
    return training, _read(arguments, held_out[0][4:], held_out[0]) if held_out else None


def _kinds(arguments: argparse.Namespace, before: str = "") -> list[str]:
    """Names of the options of data that the command has."""
    return [f"{before}{kind}" for kind in KINDS if f"{before}{kind}" in arguments]


def _given(arguments: argparse.Namespace, names) -> list[str]:
    return [name for name in names if vars(arguments)[name]]


def _read(arguments: argparse.Namespace, kind: str, name: str) -> Any:
    from effcap.trainers import read_csvs, read_jsons, read_shards, tidy

    files, edit = vars(arguments)[name], tidy if arguments.tidy else None
    if kind == CSV:
        columns = (arguments.image_column, arguments.caption_column)
        return read_csvs(files, arguments.images, *columns, edit)
    if kind == JSON:
        return read_jsons(files, arguments.images, edit)
    passes = arguments.passes if name == SHARDS else None
    how = {"decoder": arguments.decoder, "block": arguments.shuffle_block}
    return read_shards(files, arguments.index, passes, **how)
