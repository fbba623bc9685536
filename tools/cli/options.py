"""Command-line options derived from the fields of dataclasses.

Names, types, defaults and help are defined only in the dataclass. The help of an option is the
first sentence of the field's entry under "Attributes:" or "Args:" in the docstring.
"""

from __future__ import annotations

import argparse
import dataclasses
import re
import types
import typing
from collections.abc import Callable, Mapping, Sequence
from os import PathLike
from pathlib import Path
from typing import Any, Literal

from effcap.tools.docstrings import field_docs, first_sentence

METAVARS = {int: "N", float: "X", str: "TEXT", Path: "PATH"}


def add_options(
    group: Any,
    cls: type,
    names: Sequence[str],
    *,
    flags: Mapping[str, str] | None = None,
    metavars: Mapping[str, str] | None = None,
    unset: str = "",
) -> None:
    """Adds an option for each of the named fields of a dataclass.

    `num_beams: int = 5` becomes `--num-beams N`, with 5 as its default. A boolean field takes
    `--name` and `--no-name`, a `Literal` one of its values, a sequence several values. The value
    in the namespace has the name of the field (or of its flag in `flags`, with underscores).

    Args:
        group: parser or argument group.
        cls: dataclass.
        names: names of fields, in the order of the help.
        flags: other option names by field, such as {"count": "devices"}.
        metavars: placeholders in the help by field, such as {"pattern": "REGEX"}.
        unset: how the help shows the field's default, such as "{}" or "{}, unless the variant sets
            it". The options then default to None, so that `given_options` returns only those set.

    Raises:
        TypeError: a field has a type without an option.
    """
    fields = {field.name: field for field in dataclasses.fields(cls)}
    hints = typing.get_type_hints(cls)
    for name in names:
        keywords = argument_type(hints[name], name)
        metavar = (metavars or {}).get(name)
        if metavar is not None and "action" not in keywords:
            keywords["metavar"] = metavar
        default, text = field_default(fields[name]), field_help(cls, name)
        if default is dataclasses.MISSING:
            keywords["required"], default = not unset, None
        if unset:
            shown = "" if default in (None, "", ()) else unset.format(as_text(default))
            text, default = f"{text} (default: {shown})" if shown else text, None
        group.add_argument(
            option_flag((flags or {}).get(name, name)),
            default=default,
            help=text,
            **keywords,
        )


def option_flag(name: str) -> str:
    """Returns the command-line flag of a name: "num_beams" becomes "--num-beams"."""
    return f"--{name.replace('_', '-')}"


def field_help(cls: type, name: str) -> str:
    """Returns the help of a field: the first sentence of its documentation.

    Other fields in it, such as `num_beams`, become options: --num-beams.
    """
    names = [field.name for field in dataclasses.fields(cls)]

    def as_option(match: re.Match[str]) -> str:
        return option_flag(match[1]) if match[1] in names else match[0]

    text = re.sub(r"`(\w+)`", as_option, first_sentence(field_docs(cls)[name]))
    return text.replace("%", "%%")


def as_text(value: Any) -> str:
    """Returns a default as text on the command line."""
    if isinstance(value, bool):
        return "yes" if value else "no"
    return " ".join(map(str, value)) if isinstance(value, list | tuple) else str(value)


def given_options(
    arguments: argparse.Namespace,
    names: Sequence[str],
    *,
    flags: Mapping[str, str] | None = None,
) -> dict[str, Any]:
    """Returns the values of options that `add_options` added, by field, without those unset."""
    values = {
        name: getattr(arguments, (flags or {}).get(name, name).replace("-", "_")) for name in names
    }
    return {name: value for name, value in values.items() if value is not None}


def field_default(field: dataclasses.Field) -> Any:
    """Returns the default of a field; `dataclasses.MISSING` for a required one."""
    if field.default_factory is not dataclasses.MISSING:
        return field.default_factory()
    return field.default


def argument_type(annotation: Any, name: str) -> dict[str, Any]:
    """Returns the keywords of `add_argument` for values of a type.

    Raises:
        TypeError: there is no option for the type.
    """
    kinds = [kind for kind in union_members(annotation) if kind is not type(None)]
    if kinds == [bool]:
        return {"action": argparse.BooleanOptionalAction}
    if len(kinds) == 1 and typing.get_origin(kinds[0]) in (list, tuple, Sequence):
        return sequence_type(kinds[0], name)
    words = [word for kind in kinds if typing.get_origin(kind) is Literal
             for word in typing.get_args(kind)]  # fmt: skip
    classes = [plain_type(kind) for kind in kinds if typing.get_origin(kind) is not Literal]
    if not classes and words:
        return {"choices": tuple(words)}
    if None in classes or not classes:
        raise TypeError(f"The field {name} cannot become an option: its type is {annotation}")
    kind = next(kind for kind in (float, int, str, Path) if kind in classes)
    return {
        "type": number_or_word(kind, words) if words else kind,
        "metavar": "|".join([METAVARS[kind], *words]),
    }


def sequence_type(annotation: Any, name: str) -> dict[str, Any]:
    """Returns the keywords of `add_argument` for several values."""
    items = typing.get_args(annotation)
    keywords = argument_type(items[0], name)
    if typing.get_origin(annotation) is tuple and Ellipsis not in items:
        return {**keywords, "nargs": len(items)}
    return {**keywords, "nargs": "+"}


def union_members(annotation: Any) -> tuple[Any, ...]:
    """Returns the members of a union, or a single other type."""
    if typing.get_origin(annotation) in (typing.Union, types.UnionType):
        return typing.get_args(annotation)
    return (annotation,)


def plain_type(annotation: Any) -> type | None:
    """Returns the type that an option's text is converted to; None if there is none."""
    if annotation in (int, float, str, Path):
        return annotation
    if (typing.get_origin(annotation) or annotation) is PathLike:
        return Path
    return None


def number_or_word(kind: type, words: Sequence[str]) -> Callable[[str], Any]:
    """Returns a converter of text that is a value of `kind` or one of some words."""

    def convert(text: str) -> Any:
        if text in words:
            return text
        try:
            return kind(text)
        except ValueError:
            raise argparse.ArgumentTypeError(
                f"expected a number or {' or '.join(words)}. Received: {text}"
            ) from None

    return convert
