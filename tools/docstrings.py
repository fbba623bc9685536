"""Reads the documentation of fields and arguments from docstrings."""

from __future__ import annotations

import inspect
import re

SECTIONS = ("Args:", "Attributes:")
ENTRY = re.compile(r"    (\w[\w, ]*): (.+)")  # first line of the entry of one or several fields


def field_docs(cls: type) -> dict[str, str]:
    """Returns the documentation of each field, from the docstrings of a class and its bases."""
    docs: dict[str, str] = {}
    for base in reversed(cls.__mro__):
        section = ""
        names: list[str] = []
        for line in inspect.cleandoc(base.__dict__.get("__doc__") or "").splitlines():
            if line and not line.startswith(" "):
                section, names = line, []
                continue
            entry = ENTRY.fullmatch(line)
            if section in SECTIONS and entry:
                names = entry[1].split(", ")
                docs |= dict.fromkeys(names, entry[2])
            elif section in SECTIONS and line.strip():
                docs |= {name: f"{docs[name]} {line.strip()}" for name in names}
    return docs


def first_sentence(text: str) -> str:
    """Returns the first sentence of a text, without its full stop."""
    return re.split(r"\.(?:\s|$)", text, maxsplit=1)[0]
