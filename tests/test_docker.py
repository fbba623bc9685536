"""The Dockerfiles: they copy what exists, run a command, and install what is listed."""

from __future__ import annotations

import re
import shlex
import sys
from pathlib import Path

import pytest

from effcap.tools.cli.main import parser
from effcap.tools.serving.serve_options import ServeOptions
from helpers.dockerfile import DockerIgnore, Stage, parse_dockerfile

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

ROOT = Path(__file__).resolve().parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
EXTRAS = PROJECT["project"]["optional-dependencies"]
IGNORE = DockerIgnore((ROOT / ".dockerignore").read_text(encoding="utf-8"))
FILES = ("Dockerfile", "Dockerfile.train")
TRAINING_ALONE = {"tensorflow", "tensorboardX"}  # not imported by a server with OpenVINO


def stages(name: str) -> list[Stage]:
    return parse_dockerfile((ROOT / name).read_text(encoding="utf-8"))


def steps(name: str) -> str:
    """Returns all RUN steps."""
    runs = [one.text for stage in stages(name) for one in stage.instructions if one.name == "RUN"]
    return "\n".join(runs)


def copied(name: str) -> set[str]:
    """Returns what is copied from the repository."""
    copies = [copy for stage in stages(name) for copy in stage.copies()]
    return {source for copy in copies if copy.stage is None for source in copy.sources}


def package(requirement: str) -> str:
    return re.split(r"[\[<>=;]", requirement)[0]


@pytest.mark.parametrize("name", FILES)
def test_copied_files_exist_and_are_in_the_build_context(name):
    for source in copied(name):
        assert (ROOT / source).exists() and not IGNORE.excludes(source), source
    names = {stage.name for stage in stages(name)}
    assert {copy.stage for stage in stages(name) for copy in stage.copies()} <= {None, *names}


@pytest.mark.parametrize("name", FILES)
def test_all_that_pip_needs_is_copied(name):
    project, setuptools = PROJECT["project"], PROJECT["tool"]["setuptools"]
    folders = {path.partition("/")[0] for path in setuptools["package-dir"].values()}
    assert {*folders, project["readme"], *project["license-files"]} <= copied(name)
    for folder in folders:
        for path in (ROOT / folder).rglob("*"):
            relative = path.relative_to(ROOT).as_posix()
            is_cache = "__pycache__" in relative
            assert IGNORE.excludes(relative) == is_cache, relative


@pytest.mark.parametrize(
    "path", [".git/config", ".env", "out/run/best/config.json", "tests/conftest.py", "id_rsa"]
)
def test_nothing_else_is_in_the_build_context(path):
    assert IGNORE.excludes(path)


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("Dockerfile", None),
        ("Dockerfile.train", ["train", "csv", "--csv", "a.csv", "--out", "out"]),
        ("Dockerfile.train", ["list"]),
    ],
)
def test_the_command_is_one_of_effcap(name, words):
    stage = stages(name)[-1]
    entrypoint = stage.last("ENTRYPOINT").words()
    program, *rest = stage.command() if words is None else [*entrypoint, *words]
    assert program == "effcap"
    arguments, unknown = parser().parse_known_args(rest)
    assert not unknown and arguments.command == rest[0]


def test_the_served_presets_are_those_that_were_compiled():
    *_, presets, build, final = stages("Dockerfile")
    folder = f"/presets{presets.copies()[0].target}"
    assert f"/presets{presets.copies()[0].target}" in final.command()
    assert presets.copies()[0].sources == ("res/flickr8k-lite0",) and folder.endswith("lite0")
    arguments = parser().parse_args(final.command()[1:])
    precision = next(one.text for one in build.instructions if one.text.startswith("PRECISION"))
    assert f"PRECISION={arguments.precision or ServeOptions().precision}" == precision
    assert arguments.engine == "openvino" and arguments.host == "0.0.0.0"
    assert arguments.page is False  # PAGE=no is the default


def test_the_server_is_checked_at_the_port_that_is_exposed():
    final = stages("Dockerfile")[-1]
    port = ServeOptions().port
    assert final.last("EXPOSE").words() == [str(port)]
    program, option, code = final.health_check()
    assert (program, option) == ("python", "-c") and f"http://127.0.0.1:{port}/health" in code
    compile(code, "HEALTHCHECK", "exec")


def test_the_server_has_its_packages_and_no_others():
    (step,) = [line for line in steps("Dockerfile").splitlines() if "--constraint" in line]
    words = shlex.split(step.partition("install --constraint")[2].partition("&&")[0])
    installed = {word for word in words[1:] if re.fullmatch(r"[\w-]+", word)}
    installed -= {"echo", "yes", "no", "gradio"}  # $([ "$PAGE" = yes ] && echo gradio)
    core = {package(one) for one in PROJECT["project"]["dependencies"]} - TRAINING_ALONE
    extras = {package(one) for extra in ("openvino", "api") for one in EXTRAS[extra]}
    assert installed == core | extras
    assert "echo gradio" in step and [package(one) for one in EXTRAS["serve"]][-1] == "gradio"


def test_the_extras_that_are_installed_exist():
    found = [
        extra
        for name in FILES
        for group in re.findall(r"'\.\[([\w,]+)\]'", steps(name))
        for extra in group.split(",")
    ]
    assert {"openvino", "dali", "webdataset", "parquet", "audio", "wandb"} <= set(found)
    assert set(found) <= EXTRAS.keys()


@pytest.mark.parametrize("name", FILES)
def test_images_run_without_root_from_pinned_bases(name):
    final = stages(name)[-1]
    user, group = final.last("USER").text.split(":")
    assert int(user) >= 10000 and int(group) >= 10000
    for stage in stages(name):
        assert stage.base == "scratch" or re.fullmatch(r"[\w./-]+:\d+\.\d+[\w.-]*", stage.base)
        secret = re.compile("token|secret|password|_key", re.IGNORECASE)
        assert not [one for one in stage.environment() if secret.search(one)]


def test_the_parser_joins_lines_and_refuses_what_it_does_not_know():
    text = "ARG A=1\nFROM x:1.0 AS one\nRUN a \\\n  # comment\n  && b\nENV C=2 D='e f'\n"
    (stage,) = parse_dockerfile(text)
    assert [(one.name, one.text, one.line) for one in stage.instructions][0] == ("RUN", "a && b", 3)
    assert stage.environment() == {"C": "2", "D": "e f"} and stage.name == "one"
    for wrong, message in (
        ("FROM x\nADD a b", "unknown instruction ADD"),
        ("RUN a", "before FROM"),
        ("FROM x one", "AS NAME"),
        ("FROM x\nRUN a \\", "backslash"),
    ):
        with pytest.raises(ValueError, match=message):
            parse_dockerfile(wrong)
    with pytest.raises(ValueError, match="cannot read COPY"):
        parse_dockerfile("FROM x\nCOPY --chown=1 a b")[0].copies()


def test_the_last_rule_of_dockerignore_wins():
    ignore = DockerIgnore("# all\n*\n!kept\n**/cache\nkept/*.log\n")
    excluded = ["other", "kept/a/cache/b", "kept/a.log", "other/kept"]
    assert [path for path in (*excluded, "kept", "kept/a.py") if ignore.excludes(path)] == excluded
