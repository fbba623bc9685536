"""`effcap download`: downloads published weights."""

from __future__ import annotations

import argparse
from pathlib import Path

from effcap.utils.quiet import quiet


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the arguments of `effcap download`."""
    from effcap.weights.download import SIZES

    parser.description = (
        "Downloads a GPT-2 as published by OpenAI (0.5, 1.4, 3.1 or 6.2 GB). Repeat the command to "
        "resume an interrupted download."
    )
    names = [f"gpt2-{size}" for size in SIZES]
    parser.add_argument("name", choices=names, help="model, by its number of parameters")
    parser.add_argument("--to", type=Path, required=True, metavar="DIR", help="folder to write")


def run(arguments: argparse.Namespace) -> None:
    """Runs `effcap download`."""
    from effcap.utils.progress import print_line
    from effcap.weights.download import check_checkpoint, download_gpt2

    folder = download_gpt2(arguments.name.removeprefix("gpt2-"), arguments.to)
    with quiet():
        import tensorflow  # noqa: F401  reads the checkpoint
    num_parameters = check_checkpoint(folder)
    print_line(f"{num_parameters / 1e6:.1f} M parameters, all readable: {folder}")
    print_line(f"next: effcap convert {folder} PRESET, or effcap train csv --weights {folder} ...")
