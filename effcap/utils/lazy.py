"""Lazy imports of package names, so that TensorFlow is loaded only when needed."""

from __future__ import annotations

import importlib
from collections.abc import Callable, Mapping
from typing import Any


def import_name(module: str, name: str, package: str | None = None) -> Any:
    """Imports a module, and returns what it defines under a name.

    Args:
        module: absolute name of the module, or one relative to `package`, such as ".losses".
        name: name of a class, function or constant of the module.
        package: name of the package that a relative module name starts from.
    """
    return getattr(importlib.import_module(module, package), name)


def lazy_names(
    package: str, modules: Mapping[str, str]
) -> tuple[Callable[[str], Any], Callable[[], list[str]]]:
    """Returns `__getattr__` and `__dir__` of a package that imports its names lazily.

    Args:
        package: name of the package.
        modules: module of each public name, relative to the package, such as ".losses".
    """

    def get(name: str) -> Any:
        if name not in modules:
            raise AttributeError(f"module {package!r} has no attribute {name!r}")
        return import_name(modules[name], name, package)

    return get, lambda: sorted(modules)
