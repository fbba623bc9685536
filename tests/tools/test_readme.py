"""Every command and every example of the README works as it stands there."""

import re
import shlex
from pathlib import Path

import pytest

from effcap.presets import list_presets
from effcap.tools.cli import main
from effcap.tools.cli.main import parser

ROOT = Path(__file__).resolve().parents[2]
README = (ROOT / "README.md").read_text(encoding="utf-8")


def blocks(language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", README, re.DOTALL)


def commands(language: str) -> list[list[str]]:
    lines = "\n".join(blocks(language)).replace("\\\n", " ").splitlines()
    return [shlex.split(line, comments=True)[1:] for line in lines if line.startswith("effcap ")]


@pytest.fixture
def fresh_folder(tmp_path, monkeypatch):
    """A folder in which the README's paths hold, and whose output is thrown away."""
    (tmp_path / "res").symlink_to(ROOT / "res")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_preset_of_the_readme_is_shipped():
    assert "flickr8k-lite0" in list_presets()


def test_commands_run_in_the_order_of_the_readme(fresh_folder):
    for command in commands("bash"):
        assert main(command) == 0, command
    for written in ("captions.json", "captions.html", "nucleus.json", "mine/best/config.json"):
        assert (fresh_folder / "out" / written).stat().st_size > 0


def test_commands_too_long_to_run_here_are_understood():
    found = commands("sh")
    assert found
    for command in found:
        parser().parse_args(command)


def test_python_examples_run_in_the_order_of_the_readme(fresh_folder):
    names: dict = {}
    for number, block in enumerate(blocks("python")):
        exec(compile(block, f"README, example {number + 1}", "exec"), names)
    assert (fresh_folder / "out" / "my-preset" / "config.json").is_file()
