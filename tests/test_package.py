"""The package as installed: its list of packages, requirements, public names and data."""

from __future__ import annotations

import csv
import re
import subprocess
import sys
from pathlib import Path

import pytest

import effcap

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

ROOT = Path(__file__).resolve().parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
SETUPTOOLS = PROJECT["tool"]["setuptools"]
PUBLIC_PACKAGES = ("effcap", "effcap.samplers", "effcap.trainers", "effcap.tools")


def test_package_list_equals_the_packages_on_disk():
    on_disk = set()
    for package, folder in SETUPTOOLS["package-dir"].items():
        on_disk.add(package)
        for path in (ROOT / folder).rglob("__init__.py"):
            on_disk.add(".".join([package, *path.parent.relative_to(ROOT / folder).parts]))
    assert set(SETUPTOOLS["packages"]) == on_disk


def test_every_folder_of_modules_is_a_package():
    folders = {
        path.parent
        for folder in SETUPTOOLS["package-dir"].values()
        for path in (ROOT / folder).rglob("*.py")
    }
    without = [folder for folder in folders if not (folder / "__init__.py").is_file()]
    assert not without


def test_requirements_and_pyproject_have_the_same_ranges():
    lines = (ROOT / "requirements.txt").read_text(encoding="utf-8").splitlines()
    required = {line.strip() for line in lines if line.strip() and not line.startswith("#")}
    core = set(PROJECT["project"]["dependencies"])
    optional = {
        requirement
        for requirements in PROJECT["project"]["optional-dependencies"].values()
        for requirement in requirements
    }
    assert core <= required
    assert required <= core | optional


def test_version_is_a_release_number_and_is_in_the_changelog():
    assert re.fullmatch(r"\d+\.\d+\.\d+", effcap.__version__)
    assert effcap.__version__ in (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")


@pytest.mark.parametrize(
    ("module", "heavy"),
    (
        ("effcap", {"numpy", "keras", "tensorflow"}),
        ("effcap.tools.cli", {"keras", "tensorflow"}),
    ),
)
def test_imports_that_must_be_fast_import_nothing_heavy(module, heavy):
    code = f"import sys, {module}; print(*sys.modules)"
    process = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True
    )
    assert not heavy & set(process.stdout.split())


@pytest.mark.parametrize("package", PUBLIC_PACKAGES)
def test_every_public_name_can_be_imported(package):
    module = __import__(package, fromlist=["*"])
    for name in module.__all__:
        assert getattr(module, name) is not None
    with pytest.raises(AttributeError, match="no_such_name"):
        module.no_such_name  # noqa: B018


def test_package_data_is_found():
    from effcap.utils.paths import resource_folder

    assert (resource_folder("res") / "captions.csv").is_file()
    assert list(resource_folder("hparams").glob("*.json"))


def test_every_sample_photo_has_a_license_and_a_credit():
    with (ROOT / "res" / "credits.csv").open(encoding="utf-8", newline="") as file:
        credits = {row["image"]: row for row in csv.DictReader(file)}
    for photo in (ROOT / "res" / "photos").iterdir():
        assert credits[photo.name]["licence"] and credits[photo.name]["credit"], photo.name
