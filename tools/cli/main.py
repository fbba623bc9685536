"""Entry point: parses the command line, runs the command and reports errors in one line."""

from __future__ import annotations

import argparse
import importlib
import sys
import warnings
from collections.abc import Callable, Sequence

import effcap
from effcap.tools.cli.parsing import Parser

DONE, FAILED, INTERRUPTED = 0, 2, 130

# Commands with their modules and help. A module has `add_arguments(parser)` and
# `run(arguments)`; it is imported when its command is used.
COMMANDS = {
    "caption": ("caption", "caption photos, shards, region features or playlists"),
    "train": ("train", "train a captioner"),
    "compare": ("compare", "compare training runs"),
    "evaluate": ("evaluate", "score a captioner, or captions from a file"),
    "serve": ("serve", "serve captioners: a page to drop photos on, and an endpoint"),
    "features": ("features", "write features of photos or playlists to train on"),
    "shards": ("shards", "pack photos with captions into webdataset shards"),
    "index": ("index", "check webdataset shards and index them"),
    "convert": ("convert", "convert published weights to a preset"),
    "export": ("export", "export a captioner for runtimes without Keras: ONNX, LiteRT, ..."),
    "push": ("push", "upload a preset to the Hugging Face hub"),
    "download": ("download", "download GPT-2 from OpenAI"),
    "list": ("listing", "list presets, variants and settings"),
}


def parser() -> argparse.ArgumentParser:
    """Returns the parser of all commands."""
    top = Parser(prog="effcap", description="Captions photos, and trains captioners.")
    top.add_argument("--version", action="version", version=f"effcap {effcap.__version__}")
    commands = top.add_subparsers(
        title="commands", dest="command", metavar="COMMAND", required=True
    )
    for name, (module, text) in COMMANDS.items():
        commands.add_parser(name, help=text, add_arguments=lazy_command(module))
    return top


def lazy_command(module: str) -> Callable[[Parser], None]:
    """Returns a function that adds a command's arguments to its parser."""

    def add_arguments(command: Parser) -> None:
        imported = importlib.import_module(f"effcap.tools.cli.{module}")
        command.set_defaults(run=imported.run, parser=command)
        imported.add_arguments(command)

    return add_arguments


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs `effcap ARGUMENTS` and returns the exit code: 0, 2 for an error, 130 if interrupted."""
    arguments = list(sys.argv[1:] if arguments is None else arguments)
    format_warning = warnings.formatwarning
    warnings.formatwarning = lambda message, *_, **__: f"effcap: warning: {message}\n"
    try:
        parsed, unknown = parser().parse_known_args(arguments)
        if unknown:
            parsed.parser.error(f"unknown: {' '.join(unknown)}")
        parsed.arguments = arguments
        parsed.run(parsed)
    except (ImportError, OSError, ValueError) as error:
        if isinstance(error, ImportError) and "pip install" not in str(error):
            raise
        print(f"effcap: error: {one_line(error)}", file=sys.stderr)
        return FAILED
    except KeyboardInterrupt as interruption:
        print(f"effcap: {interruption or 'interrupted'}", file=sys.stderr)
        return INTERRUPTED
    finally:
        warnings.formatwarning = format_warning
    return DONE


def one_line(error: Exception) -> str:
    """Returns the message of an error on one line."""
    return " ".join(str(error).split()) or type(error).__name__
