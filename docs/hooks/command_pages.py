"""Markdown pages of the commands, from the parsers of the command line."""

from __future__ import annotations

import argparse
import re
from collections.abc import Iterator, Sequence
from functools import cache

from effcap.tools.cli.main import parser
from effcap.tools.cli.parsing import Parser

PREFIX = "commands/effcap-"  # path of the pages in docs/, before the name of the command
# Code in help texts: quoted values, JSON, options, suffixes, and words with signs such as `_`.
CODE = re.compile(
    r"`([^`]+)`|(?<!\w)'([^']+)'(?!\w)"
    r"|(\{\".*\}\]?\}?)"
    r"|((?<![\w-])--[a-z][\w-]*(?: [\w.]+=\w+)?"
    r"|(?<![\w.])\.[a-z]\w+"
    r"|(?<!\w)(?!\d+\.\d)[\w./{}<>*:|-]*(?:[_*<>{}=]|\w\.\w|://)[\w./{}<>*=:|-]*[\w}>*])"
)
DEFAULT = re.compile(r" \(default: (.*)\)$")


@cache
def command_pages() -> dict[str, str]:
    """Returns the pages of all commands: their text by path in docs/."""
    return {f"{PREFIX}{name}.md": page(name, child) for name, child in children(parser()).items()}


def command_table() -> str:
    """Returns a table of all commands with links from a page beside theirs."""
    names = children(top := parser())
    helps = {action.dest: action.help for action in choices(top)}
    rows = [f"| [`effcap {name}`](effcap-{name}.md) | {prose(helps[name])} |" for name in names]
    return "\n".join(["| command | what it does |", "|---|---|", *rows])


def children(top: argparse.ArgumentParser) -> dict[str, Parser]:
    """Returns the parsers of a parser's commands by name, with their arguments."""
    actions = [action for action in top._actions if isinstance(action, argparse._SubParsersAction)]
    commands = {name: child for action in actions for name, child in action.choices.items()}
    for command in commands.values():
        command.add_lazy_arguments()
    return commands


def page(name: str, command: Parser) -> str:
    """Returns the page of a command; one whose commands share options lists those once."""
    parts = [f"# effcap {name}", f"```text\n{usage(command)}\n```", prose(command.description)]
    sources = children(command)
    if not sources:
        return "\n\n".join([*parts, *groups(command, name), *epilog(command)]) + "\n"
    help_of = {action.dest: action.help for action in choices(command)}
    parts += [
        "\n".join(
            f"- [`{name} {source}`](#{name}-{source}): {prose(help_of[source])}"
            for source in sources
        )
    ]
    entries = [dict(entries_of(source)) for source in sources.values()]
    shared = {key for key in entries[0] if all(key in others for others in entries)}
    for source, child in sources.items():
        parts += [f"## effcap {name} {source} {{: #{name}-{source} }}"]
        parts += [f"```text\n{usage(child)}\n```"]
        own = [key for key, _ in entries_of(child) if key not in shared]
        parts += groups(child, f"{name}-{source}", own, level=3)
    first = next(iter(sources.values()))
    parts += [f"## Options of all sources {{: #{name}-all }}"]
    parts += groups(first, name, list(shared), level=3)
    return "\n\n".join([*parts, *epilog(first)]) + "\n"


def choices(command: argparse.ArgumentParser) -> Sequence[argparse.Action]:
    """Returns the actions that hold the help of a parser's commands."""
    (action,) = [one for one in command._actions if isinstance(one, argparse._SubParsersAction)]
    return action._choices_actions


def usage(command: argparse.ArgumentParser) -> str:
    """Returns the usage of a command, without its options one by one."""
    formatter = command._get_formatter()
    words = [
        formatter._format_args(action, formatter._get_default_metavar_for_positional(action))
        for action in command._actions
        if not action.option_strings
    ]
    return " ".join([command.prog, "[OPTIONS]", *words])


def entries_of(command: argparse.ArgumentParser) -> Iterator[tuple[str, str]]:
    """Yields each argument of a command as a key that identifies it and the group it is in."""
    for group in command._action_groups:
        for action in group._group_actions:
            if action.dest != "help" and action.help != argparse.SUPPRESS:
                yield entry(command, action), group.title or ""


def groups(
    command: argparse.ArgumentParser, anchor: str, keys: Sequence[str] | None = None, level: int = 2
) -> list[str]:
    """Returns the arguments of a command by group, only those with the given keys if any."""
    parts = []
    for group in command._action_groups:
        entries = [key for key, title in entries_of(command) if title == group.title]
        entries = [key for key in entries if keys is None or key in keys]
        if not entries:
            continue
        title = (group.title or "").removeprefix("positional ").capitalize()
        identifier = f"{anchor}-{re.sub(r'[^a-z]+', '-', title.lower())}"
        parts += [f"{'#' * level} {title} {{: #{identifier} }}"]
        parts += [prose(group.description)] if group.description else []
        parts += entries
    return parts


def entry(command: argparse.ArgumentParser, action: argparse.Action) -> str:
    """Returns an argument with its help and default, as an entry of a definition list."""
    formatter = command._get_formatter()
    text = formatter._expand_help(action)
    default = DEFAULT.search(text)
    lines = [f"`{formatter._format_action_invocation(action)}`"]
    lines += [f":   {prose(DEFAULT.sub('', text))}"]
    if default:
        value = default[1] if " " in default[1] else f"'{default[1]}'"
        lines += ["", f"    Default: {prose(value)}"]
    return "\n".join(lines)


def epilog(command: argparse.ArgumentParser) -> list[str]:
    """Returns the note after the options of a command, if it has one."""
    return [f"---\n\n{prose(command.epilog)}"] if command.epilog else []


def prose(text: str | None) -> str:
    """Returns a help text as Markdown: names as code, and nothing that Markdown would change."""
    words, end, text = [], 0, text or ""
    for match in CODE.finditer(text):
        words += [escape(text[end : match.start()]), f"`{match[match.lastindex or 0]}`"]
        end = match.end()
    return "".join([*words, escape(text[end:])])


def escape(text: str) -> str:
    """Returns plain text as Markdown."""
    return re.sub(r"([\\*_<>\[\]{}])", r"\\\1", text)
