"""The package as a whole: what it installs, how it is layered, what importing it costs."""

import ast
import re
import subprocess
import sys
from pathlib import Path

import pytest

import effcap

ROOT = Path(__file__).resolve().parents[2]
LAYERS = ("samplers", "tokenizer", "effcap", "tools", "trainers", "cli")


def layer_of_module(name: str) -> str:
    parts = name.split(".")
    if name == "effcap.tokenizers.tokenizer":
        return "tokenizer"
    if parts[1:3] == ["tools", "cli"]:
        return "cli"
    return parts[1] if len(parts) > 1 and parts[1] in LAYERS else "effcap"


def module_of_file(path: Path) -> str:
    parts = path.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts if parts[0] == "effcap" else ("effcap", *parts)).removesuffix(".__init__")


def imports(path: Path) -> list[str]:
    tree = ast.parse(path.read_text(encoding="utf-8"))
    found = []
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and node.module:
            found.append(node.module)
        elif isinstance(node, ast.Import):
            found += [alias.name for alias in node.names]
    return [name for name in found if name.split(".")[0] == "effcap"]


SOURCES = [
    path
    for folder in ("effcap", "samplers", "tools", "trainers")
    for path in sorted((ROOT / folder).rglob("*.py"))
]


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: str(path.relative_to(ROOT)))
def test_imports_go_down_the_layers(path):
    module = module_of_file(path)
    if module == "effcap.__main__":
        return
    above = LAYERS[LAYERS.index(layer_of_module(module)) + 1 :]
    wrong = [name for name in imports(path) if layer_of_module(name) in above]
    assert not wrong, f"{module} imports {wrong}, which stand above it"


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: str(path.relative_to(ROOT)))
def test_no_file_is_over_500_lines(path):
    assert len(path.read_text(encoding="utf-8").splitlines()) <= 500


def test_model_and_samplers_use_no_backend_of_their_own():
    for path in SOURCES:
        if path.parent.name in ("effcap", "samplers"):
            tree = ast.parse(path.read_text(encoding="utf-8"))
            names = {
                alias.name.split(".")[0]
                for node in ast.walk(tree)
                if isinstance(node, ast.Import)
                for alias in node.names
            }
            assert not names & {"tensorflow", "jax", "torch"}, path


def test_importing_effcap_imports_neither_keras_nor_tensorflow():
    code = "import sys, effcap; print(sorted({'keras', 'tensorflow', 'numpy'} & set(sys.modules)))"
    run = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True
    )
    assert run.stdout.strip() == "[]"


def test_every_public_name_can_be_imported():
    for name in effcap.__all__:
        assert getattr(effcap, name) is not None
    with pytest.raises(AttributeError, match="no_such_name"):
        effcap.no_such_name  # noqa: B018


def test_requirements_and_package_ask_for_the_same_ranges():
    project = (ROOT / "pyproject.toml").read_text(encoding="utf-8")
    lines = (ROOT / "requirements.txt").read_text(encoding="utf-8").splitlines()
    required = {line.strip() for line in lines if line.strip() and not line.startswith("#")}
    core = re.search(r"^dependencies = \[(.*?)^\]", project, re.DOTALL | re.MULTILINE).group(1)
    assert set(re.findall(r'"([^"]+)"', core)) <= required
    for line in required:
        assert f'"{line}"' in project, f"{line} is in requirements.txt alone"


def test_package_data_is_where_the_package_looks_for_it():
    from effcap.utils.paths import resource_folder

    assert (resource_folder("res") / "captions.csv").is_file()
    assert list(resource_folder("hparams").glob("*.json"))


def test_every_photo_has_its_credit():
    import csv

    with (ROOT / "res" / "credits.csv").open(encoding="utf-8", newline="") as file:
        credits = {row["image"]: row for row in csv.DictReader(file)}
    for photo in (ROOT / "res" / "photos").iterdir():
        assert credits[photo.name]["licence"] and credits[photo.name]["credit"], photo.name
