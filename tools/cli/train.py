"""`effcap train`: trains a captioner."""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Callable
from pathlib import Path

from effcap.tools.cli.parsing import Parser
from effcap.tools.cli.terminal import start_keras
from effcap.tools.cli.train_data import add_data, missing_data, read_data
from effcap.tools.cli.train_options import add_run_options, run_options

# Sources of data, one command each.
COMMANDS = {
    "csv": "on photos in CSV files, one caption per line",
    "json": "on photos in JSON files (COCO's captions, or a list of photos with captions), in data "
    "sets of the Hugging Face hub, or in Parquet files",
    "folder": "on folders of photos with metadata.jsonl, metadata.csv, or a text file per photo",
    "dali": "on webdataset shards, decoded by NVIDIA DALI or Pillow",
    "regions": "on features of photos, such as VisualGPT's detections.hdf5 or CLIP's vectors",
    "playlists": "on playlists, with features of tracks, tags and artists",
}
PHOTOS = ("csv", "json", "folder", "dali")  # sources of photos


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the commands of `effcap train`."""
    parser.description = "Trains a captioner by cross-entropy, or by SCST (--objective scst)."
    sources = parser.add_subparsers(title="data", dest="source", metavar="DATA", required=True)
    for source, text in COMMANDS.items():
        sources.add_parser(
            source,
            help=text,
            description=f"Trains a captioner {text}.",
            add_arguments=lazy_source(source),
        )


def lazy_source(source: str) -> Callable[[Parser], None]:
    """Returns a function that adds the options of a data source to its parser."""

    def add_source_options(parser: Parser) -> None:
        parser.set_defaults(parser=parser)
        add_data(parser, source)
        add_run_options(parser, photos=source in PHOTOS)

    return add_source_options


def run(arguments: argparse.Namespace) -> None:
    """Runs `effcap train`."""
    check_required(arguments)
    if arguments.smoke:
        run_smoke(arguments)
        return
    options = run_options(arguments)
    training, validation = read_data(arguments)
    start_keras()
    from effcap import trainers
    from effcap.utils.progress import print_line

    trainers.run(training, validation, options)
    print_line(f"presets: {options.folder}/best and {options.folder}/last")


def check_required(arguments: argparse.Namespace) -> None:
    """Ends with an error if required options are missing; a smoke run needs only --model."""
    required = ["model"]
    missing = []
    if not arguments.smoke:
        missing.append(missing_data(arguments))
        required = ["features"] * (arguments.source == "regions") + ["model"]
    missing += [f"--{name}" for name in required if not getattr(arguments, name)]
    if any(missing):
        names = ", ".join(filter(None, missing))
        arguments.parser.error(f"the following arguments are required: {names}")


def run_smoke(arguments: argparse.Namespace) -> None:
    """Tries the configuration on one device, in a temporary folder."""
    from effcap.trainers.options import DeviceOptions

    with tempfile.TemporaryDirectory(prefix="effcap-smoke-") as folder:
        options = run_options(
            arguments, out=Path(folder, "run"), resume=False, devices=DeviceOptions()
        )
        start_keras()
        from effcap.trainers.engine.smoke import smoke

        smoke(options, Path(folder))
