"""`effcap serve`: serves captioners to browsers and programs."""

from __future__ import annotations

import argparse

from effcap.tools.captioning.results import DEFAULT_PRESET
from effcap.tools.cli.options import add_options, given_options
from effcap.tools.cli.parsing import add_config
from effcap.tools.cli.sampling import start_engine
from effcap.tools.serving.serve_options import LIMITS, ServeOptions

ADDRESS = ("host", "port", "allow_host")
MODEL = ("batch_size", "engine", "precision", "page")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the arguments of `effcap serve`."""
    parser.description = (
        "Serves captioners: a page to drop photos on, and POST /caption for programs. There are no "
        "passwords; by default, only this machine is served."
    )
    parser.add_argument(
        "presets",
        nargs="*",
        metavar="PRESET",
        help="names, folders or hf:// names of presets; the first is the default (default: "
        f"{DEFAULT_PRESET})",
    )
    add_options(parser.add_argument_group("address"), ServeOptions, ADDRESS)
    add_options(parser, ServeOptions, MODEL)
    add_options(parser.add_argument_group("limits"), ServeOptions, LIMITS)
    add_config(parser)


def run(arguments: argparse.Namespace) -> None:
    """Runs `effcap serve`."""
    from effcap.presets import preset_folder
    from effcap.tools.serving.server import check_packages, named_captioners, serve

    names = (*ADDRESS, *MODEL, *LIMITS)
    options = ServeOptions(**given_options(arguments, names))
    presets = named_captioners(arguments.presets or [DEFAULT_PRESET])
    folders = {name: preset_folder(preset) for name, preset in presets.items()}
    check_packages(options.page)
    start_engine(arguments)
    serve(folders, options)
