"""Checks of the scripts in benchmarks/: they compile, and their page lists all of them."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
from pathlib import Path

import pytest

FOLDER = Path(__file__).resolve().parents[1] / "benchmarks"
PAGE = (FOLDER / "README.md").read_text(encoding="utf-8")
FILES = sorted(FOLDER.glob("*/*.py"))
SCRIPTS = [path for path in FILES if "__main__" in path.read_text(encoding="utf-8")]
# Those that import only NumPy before they read their options.
LIGHT = ("captioning.py", "cost.py", "limits.py", "accelerator.py")
HELP = """
import contextlib, io, runpy, sys
_, folder, *names = sys.argv
sys.path.insert(0, folder)
for name in names:
    sys.argv = [name, "--help"]
    output = io.StringIO()
    try:
        with contextlib.redirect_stdout(output):
            runpy.run_path(f"{folder}/{name}", run_name="__main__")
    except SystemExit as exit:
        print(name, exit.code, "usage:" in output.getvalue(), "keras" in sys.modules)
"""


def options(path: Path) -> set[str]:
    """Returns the options that a script defines."""
    calls = [
        node
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(node, ast.Call) and getattr(node.func, "attr", "") == "add_argument"
    ]
    names = [call.args[0] for call in calls if call.args]
    return {name.value for name in names if isinstance(name, ast.Constant)}


def commands(text: str) -> list[tuple[str, list[str]]]:
    """Returns the script and the long options of each command of a text."""
    pattern = r"python (benchmarks/\w+/\w+\.py)((?:\\\n|[^`\n])*)"
    return [(path, re.findall(r"(--[\w-]+)", rest)) for path, rest in re.findall(pattern, text)]


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.name)
def test_a_benchmark_compiles_and_shows_commands_that_it_takes(path):
    source = path.read_text(encoding="utf-8")
    compile(source, str(path), "exec")
    docstring = ast.get_docstring(ast.parse(source)) or ""
    for script, used in commands(docstring):
        assert FOLDER.parent / script == path
        assert set(used) <= options(path)


def test_the_page_has_a_command_of_every_script():
    found = {script for script, _ in commands(PAGE)}
    without = {"prefix_times.py", "language_model.py"}  # run by others
    expected = {str(x.relative_to(FOLDER.parent)) for x in SCRIPTS if x.name not in without}
    assert found == expected


def test_commands_of_the_page_use_options_that_exist():
    for script, used in commands(PAGE):
        assert set(used) <= options(FOLDER.parent / script), script


def test_options_of_the_benchmarks_of_captions_are_read_without_keras():
    command = [sys.executable, "-c", HELP, str(FOLDER / "speed"), *LIGHT]
    output = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    assert output.splitlines() == [f"{name} 0 True False" for name in LIGHT]


def test_a_benchmark_asks_for_the_environment_of_its_peer():
    command = [sys.executable, str(FOLDER / "speed" / "captioning.py")]
    process = subprocess.run(command, capture_output=True, text=True)
    assert process.returncode == 2
    assert "--python is required" in process.stderr
