"""Argument parser of all commands, with defaults from --config files and --set NAME=VALUE."""

from __future__ import annotations

import argparse
import dataclasses
import json
import sys
import typing
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NoReturn

from effcap.tools.cli.options import option_flag, union_members

# Options that start a run, not part of its configuration.
NOT_RECORDED = ("config", "help", "resume", "smoke")


class HelpFormatter(argparse.ArgumentDefaultsHelpFormatter):
    """Shows defaults, except empty ones."""

    def _get_help_string(self, action: argparse.Action) -> str | None:
        default = action.default
        if default is None or default is False or default in ("", [], (), argparse.SUPPRESS):
            return action.help
        return super()._get_help_string(action)


class Parser(argparse.ArgumentParser):
    """An `ArgumentParser` with full option names, one-line errors and defaults from a file.

    Args:
        add_arguments: adds the arguments when they are first needed, so that `effcap --help` does
            not import the modules of all commands.
    """

    def __init__(
        self, *, add_arguments: Callable[[Parser], None] | None = None, **kwargs: Any
    ) -> None:
        super().__init__(allow_abbrev=False, formatter_class=HelpFormatter, **kwargs)
        self._add_arguments = add_arguments

    def add_lazy_arguments(self) -> None:
        """Adds the arguments that are added when first needed, once."""
        if self._add_arguments is not None:
            add_arguments, self._add_arguments = self._add_arguments, None
            add_arguments(self)

    def parse_known_args(self, args: Any = None, namespace: Any = None) -> Any:
        """Parses as argparse does, after setting the defaults of a --config file."""
        args = sys.argv[1:] if args is None else list(args)
        self.add_lazy_arguments()
        if "--config" in self._option_string_actions:
            path = find_config(args)
            if path is not None:
                set_config(self, path)
        return super().parse_known_args(args, namespace)

    def error(self, message: str) -> NoReturn:
        """Prints the error in one line and exits with 2."""
        self.exit(2, f"{self.prog}: error: {message} (try `{self.prog} --help`)\n")


def add_config(parser: argparse.ArgumentParser | argparse._ArgumentGroup) -> None:
    """Adds --config, which `Parser` reads before the other options."""
    parser.add_argument(
        "--config",
        type=Path,
        metavar="FILE",
        help="JSON with defaults for these options by long name, or the run.json of an earlier run",
    )


def find_config(arguments: Sequence[str]) -> Path | None:
    """Returns the file given with --config, if any."""
    finder = argparse.ArgumentParser(add_help=False, allow_abbrev=False, exit_on_error=False)
    finder.add_argument("--config", type=Path)
    try:
        return finder.parse_known_args(arguments)[0].config
    except argparse.ArgumentError:  # reported by the command's own parser
        return None


def set_config(parser: argparse.ArgumentParser, path: Path) -> None:
    """Makes the values of a JSON file the defaults of a parser's options.

    Args:
        parser: a command's parser.
        path: JSON object with values by long option name, directly or under "config" as in
            run.json. null means that an option is not set.

    Raises:
        FileNotFoundError: the file does not exist.
        ValueError: the file has another format, an option is unknown or a value is invalid.
    """
    for name, value in read_options(path).items():
        action = parser._option_string_actions.get(option_flag(name))
        if action is None or action.dest in NOT_RECORDED:
            raise ValueError(f"Unknown option in {path}: {name}")
        if value is None:
            continue
        try:
            parser.set_defaults(**{action.dest: option_value(action, value)})
        except (argparse.ArgumentTypeError, TypeError, ValueError) as error:
            raise ValueError(f"Invalid value of {name} in {path}: {error}") from None
        action.required = False
        for group in parser._mutually_exclusive_groups:
            group.required = group.required and action not in group._group_actions


def read_options(path: Path) -> dict[str, Any]:
    """Reads a JSON object of options; see `set_config`."""
    if not path.is_file():
        raise FileNotFoundError(f"There is no file {path}, given with --config")
    try:
        contents = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise ValueError(f"Expected JSON in {path}. Received: {error}") from None
    if isinstance(contents, dict):
        contents = contents.get("config", contents)
    if not isinstance(contents, dict):
        raise ValueError(
            f"Expected a JSON object of options in {path}. Received: {type(contents).__name__}"
        )
    return contents


def option_value(action: argparse.Action, value: Any) -> Any:
    """Converts a JSON value to the value of an option."""
    if action.nargs == 0:
        if not isinstance(value, bool):
            raise ValueError(f"expected true or false. Received: {json.dumps(value)}")
        return value
    several = isinstance(action, argparse._AppendAction) or action.nargs not in (None, "?")
    if not several:
        return single_value(action, value)
    values = value if isinstance(value, list) else [value]
    if isinstance(action.nargs, int) and len(values) != action.nargs:
        raise ValueError(f"expected {action.nargs} values. Received: {len(values)}")
    return [single_value(action, item) for item in values]


def single_value(action: argparse.Action, value: Any) -> Any:
    """Converts a JSON string or number to the type of an option."""
    if isinstance(value, bool) or not isinstance(value, str | int | float):
        raise ValueError(f"expected a string or a number. Received: {json.dumps(value)}")
    convert = typing.cast(Callable[[str], Any], action.type or str)
    converted = convert(str(value))
    if action.choices is not None and converted not in action.choices:
        words = ", ".join(map(str, action.choices))
        raise ValueError(f"expected one of {words}. Received: {value}")
    return converted


def recorded_options(arguments: argparse.Namespace) -> dict[str, Any]:
    """Returns the options of a command by long name, as JSON values, for --config."""
    parser: argparse.ArgumentParser = arguments.parser
    values = {
        action.option_strings[0].removeprefix("--"): getattr(arguments, action.dest)
        for action in parser._actions
        if action.option_strings and action.dest not in NOT_RECORDED
    }
    return {name: as_json(value) for name, value in values.items() if value not in (None, [])}


def as_json(value: Any) -> Any:
    """Converts the value of an option to a JSON value."""
    if isinstance(value, list | tuple):
        return [as_json(item) for item in value]
    return str(value) if isinstance(value, Path) else value


def add_settings(group: Any, *examples: str, note: str = "") -> None:
    """Adds --set NAME=VALUE.

    Args:
        group: parser or argument group.
        examples: settings for the help.
        note: text after the help.
    """
    group.add_argument(
        "--set",
        action="append",
        default=[],
        metavar="NAME=VALUE",
        help=f"setting to change, such as {' or '.join(examples)}; may be repeated{note}",
    )


def parse_sections(settings: Sequence[str], names: Sequence[str]) -> dict[str, dict[str, Any]]:
    """Returns the settings of --set as nested dictionaries by section.

    Args:
        settings: such as ["decoder.dropout=0.1"].
        names: names of all sections, which are the keys of the result.

    Raises:
        ValueError: a setting is malformed or belongs to another section.
    """
    from effcap.config import parse_settings

    sections = parse_settings(settings)
    unknown = [name for name in sections if name not in names]
    if unknown:
        raise ValueError(
            f"Unknown section in --set: {unknown[0]}. The sections are {', '.join(names)}"
        )
    return {name: sections.get(name, {}) for name in names}


def check_fields(cls: type, section: str, values: Mapping[str, Any]) -> None:
    """Checks the names and types of settings for the fields of a dataclass.

    Raises:
        ValueError: there is no such field, or it has another type.
    """
    hints = typing.get_type_hints(cls)
    known = [field.name for field in dataclasses.fields(cls)]
    for name, value in values.items():
        if name not in known:
            raise ValueError(
                f"Unknown setting {section}.{name}. The settings are {', '.join(known)}"
            )
        if not fits(value, hints[name]):
            expected = getattr(hints[name], "__name__", str(hints[name]))
            raise ValueError(
                f"Expected {section}.{name} of type {expected}. Received: {json.dumps(value)}"
            )


def fits(value: Any, annotation: Any) -> bool:
    """Returns whether a JSON value is valid for an annotated type."""
    for kind in union_members(annotation):
        origin = typing.get_origin(kind) or kind
        if origin is typing.Literal:
            if value in typing.get_args(kind):
                return True
        elif origin is float:
            if isinstance(value, int | float) and not isinstance(value, bool):
                return True
        elif origin is int:
            if isinstance(value, int) and not isinstance(value, bool):
                return True
        elif origin in (list, tuple):
            if isinstance(value, list):
                return True
        elif isinstance(origin, type) and isinstance(value, origin):
            return True
    return False
