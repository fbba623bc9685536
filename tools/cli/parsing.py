"""The parser of all commands: errors in one line, and options from a file."""

from __future__ import annotations

import argparse
import json
import re
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import NoReturn

GROUPS = {"train"}  # commands that have commands of their own
SETTING = re.compile(r"[a-z_][a-z0-9_.]*=")  # how NAME=VALUE begins


class HelpFormatter(argparse.ArgumentDefaultsHelpFormatter):
    """Tells defaults, where there are any."""

    def _get_help_string(self, action: argparse.Action) -> str | None:
        nothing = action.default in (None, False, argparse.SUPPRESS) or action.default == []
        return action.help if nothing else super()._get_help_string(action)


class Parser(argparse.ArgumentParser):
    """An `ArgumentParser` that takes options by their full names and complains in one line."""

    def __init__(self, *args, **kwargs):
        super().__init__(*args, allow_abbrev=False, formatter_class=HelpFormatter, **kwargs)

    def parse_known_args(self, args=None, namespace=None):
        """As of argparse, but what follows settings need not be a setting."""
        return super().parse_known_args(
            one_setting_each(sys.argv[1:] if args is None else args), namespace
        )

    def error(self, message: str) -> NoReturn:
        self.exit(2, f"{self.prog}: error: {message} (try `{self.prog} --help`)\n")


def one_setting_each(arguments: Sequence[str]) -> list[str]:
    """`--set a=1 b=2 FILE` as `--set=a=1 --set=b=2 FILE`; argparse would take FILE as well."""
    words, setting = [], False
    for word in arguments:
        setting = setting and SETTING.match(word) is not None
        if setting:
            word = f"--set={word}"
            if words[-1] == "--set":
                words.pop()
        words.append(word)
        setting = setting or word == "--set"
    return words


def add_config(parser: argparse.ArgumentParser) -> None:
    """Adds --config, which `expand_config` deals with before the parser sees it."""
    parser.add_argument(
        "--config",
        type=Path,
        metavar="FILE",
        help="JSON with values for these options by their long names, or the run.json of an "
        "earlier run; options given here win",
    )


def expand_config(arguments: Sequence[str]) -> list[str]:
    """Puts the options of a --config file before those given, which therefore win.

    Raises:
        FileNotFoundError: without such a file.
        ValueError: when it is no JSON object of that form.
    """
    finder = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
    finder.add_argument("--config", type=Path)
    finder.error = lambda message: None  # the parser proper will tell
    found = finder.parse_known_args(list(arguments))
    if found is None or found[0].config is None:
        return list(arguments)
    path = found[0].config
    if not path.is_file():
        raise FileNotFoundError(f"Expected a JSON file for --config. Received: {path}")
    try:
        contents = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise ValueError(f"Expected JSON in {path}. Received: {error}") from None
    if isinstance(contents, dict):
        contents = contents.get("flags", contents)
    if not isinstance(contents, dict):
        raise ValueError(
            f"Expected a JSON object with long option names in {path}. Received: "
            f"{type(contents).__name__}"
        )
    words = 2 if arguments[0] in GROUPS else 1
    given = [word for name, value in contents.items() for word in as_words(name, value)]
    return [*arguments[:words], *given, *arguments[words:]]


def as_words(name: str, value: object) -> list[str]:
    """An option as on the command line."""
    flag = name.replace("_", "-")
    if value is None or value == []:
        return []
    if isinstance(value, bool):
        return [f"--{flag}" if value else f"--no-{flag}"]
    if isinstance(value, list):
        return [f"--{flag}", *map(str, value)]
    return [f"--{flag}={value}"]


def flags_of(parsed: argparse.Namespace) -> dict[str, object]:
    """The options of a command by their long names, as --config takes them."""
    skipped = ("arguments", "command", "config", "parser", "resume", "run", "smoke", "source")
    return {
        name.replace("_", "-"): as_json(value)
        for name, value in vars(parsed).items()
        if name not in skipped and value is not None
    }


def as_json(value: object) -> object:
    """A value of an option as JSON holds it."""
    if isinstance(value, list):
        return [as_json(item) for item in value]
    return str(value) if isinstance(value, Path) else value
