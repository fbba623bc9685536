"""`effcap download`: published weights onto this computer."""

from __future__ import annotations

import argparse
from pathlib import Path

from effcap.tools.cli.terminal import quiet

NAMES = ("gpt2-124M", "gpt2-355M", "gpt2-774M", "gpt2-1558M")


def add_parser(commands: argparse._SubParsersAction) -> None:
    """Adds `download`."""
    parser = commands.add_parser(
        "download",
        help="download GPT-2 from OpenAI",
        description="Downloads a GPT-2 as OpenAI published it (0.5, 1.4, 3.1 or 6.2 GB). Called "
        "again, it goes on where it was broken off.",
    )
    parser.set_defaults(run=run, parser=parser)
    parser.add_argument("name", choices=NAMES, help="which, by its parameters")
    parser.add_argument("--to", type=Path, required=True, metavar="DIR", help="folder to write")


def run(arguments: argparse.Namespace) -> None:
    """Runs `effcap download`."""
    from effcap.utils.progress import say
    from effcap.weights.download import check_checkpoint, download_gpt2

    folder = download_gpt2(arguments.name.removeprefix("gpt2-"), arguments.to)
    with quiet():
        import tensorflow  # noqa: F401  reads the checkpoint
    say(f"{check_checkpoint(folder) / 1e6:.1f} M parameters, all of them read and right: {folder}")
    say(f"next: effcap convert {folder} PRESET, or effcap train csv --weights {folder} ...")
