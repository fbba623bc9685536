"""Commands, options and examples in README.md, CONTRIBUTING.md and docs/ are valid and work.

Blocks marked `bash` and `python` are run in the order of the page, and print what a `text` block
after them shows; `sh` and `py` blocks are only checked, because they need data or minutes, or
repeat others.
"""

from __future__ import annotations

import argparse
import ast
import contextlib
import io
import json
import re
import shlex
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest

from effcap.presets import list_presets
from effcap.tools.cli import main
from effcap.tools.cli.main import parser
from effcap.tools.cli.parsing import Parser

ROOT = Path(__file__).resolve().parents[2]
PAGES = [
    path
    for path in (
        ROOT / "README.md",
        ROOT / "CONTRIBUTING.md",
        *sorted((ROOT / "docs").rglob("*.md")),
    )
    if path.is_file()
]
# Scripts whose options the pages may name.
SCRIPTS = [
    ROOT / "start.py",
    *sorted((ROOT / "benchmarks").rglob("*.py")),
    *sorted((ROOT / "tests" / "robustness").glob("*.py")),
]
OTHER_TOOLS = ("pip", "pytest", "ruff", "mypy", "mkdocs", "docker", "git", "curl", r"run\.py")


def name_of(page: Path) -> str:
    """Returns the path of a page in the repository, as id of a test."""
    return str(page.relative_to(ROOT))


def blocks(page: Path) -> list[tuple[str, str]]:
    """Returns (language, code) of the fenced blocks of a page."""
    return re.findall(r"^```(\w+)\n(.*?)^```", page.read_text(encoding="utf-8"), re.M | re.S)


def commands(code: str, program: str = "effcap") -> Iterator[list[str]]:
    """Yields the words that follow a program's name on the lines of a shell block."""
    for line in code.replace("\\\n", " ").splitlines():
        words = shlex.split(line, comments=True)
        if words[:1] == [program]:
            yield words[1:]


def subparsers(top: Parser) -> Iterator[Parser]:
    """Yields a parser and all parsers of its commands."""
    with contextlib.suppress(SystemExit), contextlib.redirect_stdout(io.StringIO()):
        top.parse_known_args(["--help"])  # commands add their arguments when they are used
    yield top
    for action in top._actions:
        if isinstance(action, argparse._SubParsersAction):
            for command in action.choices.values():
                yield from subparsers(command)


@cache
def known_options() -> frozenset[str]:
    """Returns the long options of all commands and scripts."""
    options = {
        option
        for command in subparsers(parser())
        for action in command._actions
        for option in action.option_strings
    }
    for script in SCRIPTS:
        options |= set(re.findall(r'"(--[\w-]+)"', script.read_text(encoding="utf-8")))
    return frozenset(options)


@pytest.fixture
def fresh_folder(tmp_path, monkeypatch):
    """A folder with the repository's res/, for commands that write to out/."""
    with contextlib.suppress(ImportError):
        monkeypatch.setattr("datasets.config.HF_DATASETS_CACHE", tmp_path / "cache")
    (tmp_path / "res").symlink_to(ROOT / "res")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_preset_of_the_readme_is_shipped():
    assert "flickr8k-lite0" in list_presets()


def test_commands_of_the_pages_are_valid(fresh_folder):
    invalid = []
    for page in PAGES:
        for language, code in blocks(page):
            for words in commands(code) if language in ("bash", "sh") else ():
                try:
                    parser().parse_args(words)
                except SystemExit as end:
                    if end.code != 0:  # 0 for --version
                        invalid.append(f"{name_of(page)}: effcap {shlex.join(words)}")
    assert not invalid, "\n".join(invalid)


def test_scripts_named_in_the_pages_exist_and_have_the_named_options():
    invalid = []
    for page in PAGES:
        text = page.read_text(encoding="utf-8").replace("\\\n", " ")
        for script, rest in re.findall(r"python3? ((?:\w+/)*\w+\.py)([^\n`#]*)", text):
            if script.startswith("out/"):  # written by a command
                continue
            path = ROOT / script
            source = path.read_text(encoding="utf-8") if path.is_file() else ""
            missing = [option for option in re.findall(r"--[\w-]+", rest) if option not in source]
            if not source or missing:
                invalid.append(f"{name_of(page)}: {script} {' '.join(missing)}")
    assert not invalid, "\n".join(invalid)


def test_options_named_in_the_text_exist():
    unknown = []
    for page in PAGES:
        text = re.sub(r"^```.*?^```", "", page.read_text(encoding="utf-8"), flags=re.M | re.S)
        for code in re.findall(r"`([^`]*--[^`]*)`", text):
            if any(re.search(rf"\b{tool}\b", code) for tool in OTHER_TOOLS):
                continue
            unknown += [
                f"{name_of(page)}: {option}"
                for option in re.findall(r"(?<![\w-])--[a-z][\w-]*", code)
                if option not in known_options()
            ]
    assert not unknown, "\n".join(unknown)


def test_python_blocks_are_valid():
    for page in PAGES:
        for language, code in blocks(page):
            if language in ("python", "py"):
                ast.parse(code, name_of(page))


def runs(page: Path) -> bool:
    """Returns whether a page has blocks that are run here."""
    return any(
        language == "python" or (language == "bash" and any(commands(code)))
        for language, code in blocks(page)
    )


@pytest.mark.slow
@pytest.mark.parametrize("page", list(filter(runs, PAGES)), ids=name_of)
def test_page_runs_from_top_to_bottom(page, fresh_folder, capsys):
    names: dict = {}
    printed = ""
    for number, (language, code) in enumerate(blocks(page), 1):
        if language == "bash":
            capsys.readouterr()
            for words in commands(code):
                assert main(words) == 0, f"effcap {shlex.join(words)}"
                for option, value in zip(words, words[1:], strict=False):
                    if option in ("--out", "--page", "--json", "--report"):
                        assert Path(value).exists(), f"effcap {shlex.join(words)}"
            printed = capsys.readouterr().out
        elif language == "python":
            capsys.readouterr()
            exec(compile(code, f"{name_of(page)}, block {number}", "exec"), names)
            printed = capsys.readouterr().out
            for expression, value in re.findall(r"^(\S.*?)  # ('.*')$", code, re.M):
                assert repr(eval(expression, names)) == value
        elif language == "text":
            assert printed == code, f"{name_of(page)}, block {number}"
    if page.name == "README.md":
        check_home_page(Path("out/captions.json"))


def check_home_page(captions: Path) -> None:
    """Checks that the photos of the home page have the captions in a file."""
    home = (ROOT / "docs" / "index.md").read_text(encoding="utf-8")
    shown = re.findall(r"^- !\[.*\]\(\.\./(res/photos/.*)\)\n\n    (.*)$", home, re.M)
    written = {row["image"]: row["caption"] for row in json.loads(captions.read_text())}
    assert shown and [written[photo] for photo, _ in shown] == [text for _, text in shown]
