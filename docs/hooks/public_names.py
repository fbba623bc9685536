"""Public names of the packages, read from their sources, for the pages of the Python reference."""

from __future__ import annotations

import ast
import re
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
MARKER = re.compile(r"^<!-- names of (effcap(?:\.\w+)?) -->$", re.M)
FOLDERS = ("samplers", "trainers", "tools")  # packages that lie beside effcap/ in the repository


def expand_names(markdown: str) -> str:
    """Replaces a line `<!-- names of PACKAGE -->` by the documentation of its public names."""
    return MARKER.sub(lambda match: reference(match[1]), markdown)


def reference(package: str) -> str:
    """Returns the entries of a package's public names for mkdocstrings."""
    return "\n\n".join(f"::: {package}.{name}" for name in documented_names(package))


def documented_names(package: str) -> list[str]:
    """Returns the public names of a package that its page documents, the captioner first.

    Samplers are documented once, as names of `effcap.samplers`.
    """
    names = set(public_names(package)) - {"__version__"}
    if package == "effcap":
        names -= set(public_names("effcap.samplers"))
    return sorted(names, key=lambda name: (name != "Captioner", name.lower()))


def public_names(package: str) -> list[str]:
    """Returns `__all__` of a package, without importing it."""
    tree = ast.parse(source_of(package).read_text(encoding="utf-8"))
    assigned = {
        target.id: node.value
        for node in tree.body
        if isinstance(node, ast.Assign)
        for target in node.targets
        if isinstance(target, ast.Name)
    }
    return names_in(assigned["__all__"], assigned)


def source_of(package: str) -> Path:
    """Returns the `__init__.py` of a package in the repository."""
    name = package.partition(".")[2]
    folder = ROOT / name if name in FOLDERS else ROOT / "effcap" / name
    return folder / "__init__.py"


def names_in(node: ast.expr, assigned: dict[str, ast.expr]) -> list[str]:
    """Returns the strings of a list or the keys of a dictionary, as far as they are literal.

    Raises:
        ValueError: the expression is computed in another way.
    """
    if isinstance(node, ast.Constant) and isinstance(node.value, str):
        return [node.value]
    if isinstance(node, ast.Starred):
        return names_in(node.value, assigned)
    if isinstance(node, ast.Name) and node.id in assigned:
        return names_in(assigned[node.id], assigned)
    if isinstance(node, ast.Call) and ast.unparse(node.func) == "list":
        return names_in(node.args[0], assigned)
    if isinstance(node, ast.List | ast.Tuple):
        return [name for item in node.elts for name in names_in(item, assigned)]
    if isinstance(node, ast.Dict):
        return [name for key in node.keys if key for name in names_in(key, assigned)]
    raise ValueError(f"Expected a list of names in __all__. Received: {ast.unparse(node)}")
