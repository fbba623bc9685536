"""`effcap train`: photos with captions into a trained captioner."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

from effcap.tools.cli.run_arguments import add_run_arguments, run_options
from effcap.tools.cli.terminal import start_keras


def add_parser(commands: argparse._SubParsersAction) -> None:
    """Adds `train` with its sources of data."""
    train = commands.add_parser(
        "train", help="train a captioner", description="Trains a captioner."
    )
    sources = train.add_subparsers(title="data", dest="source", metavar="DATA", required=True)
    add_csv(sources)
    add_json(sources)


def add_csv(sources: argparse._SubParsersAction) -> None:
    """Adds `train csv`."""
    csv = sources.add_parser(
        "csv",
        help="from CSV files: a photo and a caption per line",
        description="Trains a captioner on CSV files with a photo and a caption per line.",
    )
    csv.set_defaults(run=run_csv, parser=csv)
    data = add_files(csv, "csv")
    data.add_argument("--image-column", default="image", metavar="NAME", help="column of the photo")
    data.add_argument(
        "--caption-column", default="caption", metavar="NAME", help="column of the caption"
    )
    add_run_arguments(csv)


def add_json(sources: argparse._SubParsersAction) -> None:
    """Adds `train json`."""
    json = sources.add_parser(
        "json",
        help="from JSON files: COCO's captions, or a list of photos with captions",
        description="Trains a captioner on JSON files: COCO's captions_*.json, or a list of "
        '{"image", "text"}, also one per line.',
    )
    json.set_defaults(run=run_json, parser=json)
    add_files(json, "json")
    add_run_arguments(json)


def add_files(parser: argparse.ArgumentParser, kind: str):
    """Adds the options of data in files with captions beside a folder of photos."""
    data = parser.add_argument_group("data")
    data.add_argument(f"--{kind}", nargs="+", type=Path, metavar="FILE", help="training captions")
    data.add_argument(
        f"--val-{kind}", nargs="+", type=Path, metavar="FILE", help="held-out captions"
    )
    data.add_argument(
        "--images",
        type=Path,
        metavar="DIR",
        help=f"folder of the photos; by default that of the {kind.upper()} file",
    )
    data.add_argument(
        "--tidy",
        action=argparse.BooleanOptionalAction,
        default=False,
        help="tidy captions: single spaces, a capital first letter, a full stop",
    )
    return data


def run_csv(arguments: argparse.Namespace) -> None:
    """Runs `effcap train csv`."""
    from effcap.trainers import read_csvs

    columns = (arguments.image_column, arguments.caption_column)

    def read(paths, images, edit):
        return read_csvs(paths, images, *columns, edit)

    run_files(arguments, "csv", read)


def run_json(arguments: argparse.Namespace) -> None:
    """Runs `effcap train json`."""
    from effcap.trainers import read_jsons

    run_files(arguments, "json", read_jsons)


def run_files(arguments: argparse.Namespace, kind: str, read: Callable[..., Any]) -> None:
    """Reads the files of that kind, by `read(paths, images, edit)`, and trains."""
    from effcap.trainers import tidy

    needed = ("model",) if arguments.smoke else (kind, "model", "out")
    missing = ", ".join(f"--{name}" for name in needed if not vars(arguments)[name])
    if missing:
        arguments.parser.error(f"the following arguments are required: {missing}")
    if arguments.smoke:
        run_smoke(arguments)
        return
    given, held_out = vars(arguments)[kind], vars(arguments)[f"val_{kind}"]
    options = run_options(arguments)
    edit = tidy if arguments.tidy else None
    training, validation = (
        read(paths, arguments.images, edit) if paths else None for paths in (given, held_out)
    )
    start_keras()
    from effcap.trainers import run
    from effcap.trainers.progress import say

    run(training, validation, options)
    say(f"best: {arguments.out / 'best'}, last: {arguments.out / 'last'}")


def run_smoke(arguments: argparse.Namespace) -> None:
    """Tries the configuration, in a folder that is gone afterwards."""
    import tempfile

    with tempfile.TemporaryDirectory(prefix="effcap-smoke-") as folder:
        arguments.out = arguments.out or Path(folder) / "run"
        options = run_options(arguments)
        start_keras()
        from effcap.trainers.smoke import smoke

        smoke(replace(options, out=Path(folder) / "run", resume=False), Path(folder))
