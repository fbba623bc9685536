"""Entry point: parses the command line, runs the command, turns bad input into one line."""

from __future__ import annotations

import argparse
import sys
import warnings
from collections.abc import Sequence

import effcap
from effcap.tools.cli import (
    caption,
    convert,
    download,
    evaluate,
    features,
    index,
    listing,
    shards,
    train,
)
from effcap.tools.cli.parsing import Parser, expand_config

DONE, FAILED, INTERRUPTED = 0, 2, 130


def parser() -> argparse.ArgumentParser:
    """The parser of all commands."""
    top = Parser(prog="effcap", description="Captions photos, and trains captioners.")
    top.add_argument("--version", action="version", version=f"effcap {effcap.__version__}")
    commands = top.add_subparsers(
        title="commands", dest="command", metavar="COMMAND", required=True
    )
    for command in (caption, train, evaluate, features, shards, index, convert, download, listing):
        command.add_parser(commands)
    return top


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs `effcap ARGUMENTS`; returns the exit code, 2 for bad input."""
    arguments = list(sys.argv[1:] if arguments is None else arguments)
    format_warning = warnings.formatwarning
    warnings.formatwarning = lambda message, *_, **__: f"effcap: warning: {message}\n"
    try:
        parsed, unknown = parser().parse_known_args(expand_config(arguments))
        if unknown:
            parsed.parser.error(f"unknown: {' '.join(unknown)}")
        parsed.arguments = arguments
        parsed.run(parsed)
    except (ValueError, OSError) as error:
        print(f"effcap: error: {one_line(error)}", file=sys.stderr)
        return FAILED
    except KeyboardInterrupt as interruption:
        print(f"effcap: {interruption or 'interrupted'}", file=sys.stderr)
        return INTERRUPTED
    finally:
        warnings.formatwarning = format_warning
    return DONE


def one_line(error: Exception) -> str:
    """What an error says; the libraries' own are often several lines."""
    return " ".join(str(error).split()) or type(error).__name__
