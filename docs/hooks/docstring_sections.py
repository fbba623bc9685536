"""Docstrings in the form that griffe reads."""

from __future__ import annotations

import re
from typing import Any

import griffe

# `Call arguments:` and `Returns:` of a class describe its call, as in Keras.
CLASS_NAMES = {"Example": "Examples", "Returns": "Call result"}
NAMES = {"Example": "Examples"}


# Entry of several arguments, such as "before, after: text in front of and behind each caption".
ENTRY = re.compile(r"^( +)(\w+(?:, \w+)+): (.*(?:\n\1 +\S.*)*)", re.M)


class DocstringSections(griffe.Extension):
    """Renames sections of docstrings, and gives each argument an entry of its own."""

    def on_object(self, *, obj: griffe.Object, **_: Any) -> None:
        """Changes the docstring of an object before griffe parses it."""
        if obj.docstring:
            names = CLASS_NAMES if obj.is_class else NAMES
            text = re.sub(
                r"^(\w+):$",
                lambda match: f"{names.get(match[1], match[1])}:",
                obj.docstring.value,
                flags=re.M,
            )
            obj.docstring.value = ENTRY.sub(separate, text)


def separate(entry: re.Match[str]) -> str:
    """Returns an entry of several arguments as one for each."""
    return "\n".join(f"{entry[1]}{name}: {entry[3]}" for name in entry[2].split(", "))
