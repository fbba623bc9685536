"""Sections of docstrings, in the names that griffe reads."""

from __future__ import annotations

import re
from typing import Any

import griffe

# `Call arguments:` and `Returns:` of a class describe its call, as in Keras.
CLASS_NAMES = {"Example": "Examples", "Returns": "Call result"}
NAMES = {"Example": "Examples"}


class DocstringSections(griffe.Extension):
    """Renames sections of docstrings before griffe parses them."""

    def on_object(self, *, obj: griffe.Object, **_: Any) -> None:
        """Renames the sections of an object's docstring."""
        if obj.docstring:
            names = CLASS_NAMES if obj.is_class else NAMES
            obj.docstring.value = re.sub(
                r"^(\w+):$",
                lambda match: f"{names.get(match[1], match[1])}:",
                obj.docstring.value,
                flags=re.M,
            )
