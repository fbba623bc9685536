"""The documentation site is complete: pages, links, commands and public names."""

from __future__ import annotations

import argparse
import importlib
import re
from collections.abc import Iterator
from pathlib import Path

import command_pages
import public_names
import pytest

from effcap.tools.cli.main import parser

ROOT = Path(__file__).resolve().parents[1]
DOCS = ROOT / "docs"
ROOT_PAGES = ("README.md", "CONTRIBUTING.md", "CHANGELOG.md")
PACKAGES = ("effcap", "effcap.samplers", "effcap.trainers", "effcap.tools", "effcap.metrics")


def written_pages() -> dict[Path, str]:
    """Returns the text of the pages in the repository."""
    paths = [*(ROOT / name for name in ROOT_PAGES), *sorted(DOCS.rglob("*.md"))]
    return {path: path.read_text(encoding="utf-8") for path in paths}


def generated_pages() -> dict[Path, str]:
    """Returns the text of the pages of the commands."""
    return {DOCS / page: text for page, text in command_pages.command_pages().items()}


def without_blocks(text: str) -> str:
    """Returns a page without its fenced blocks."""
    return re.sub(r"^```.*?^```", "", text, flags=re.M | re.S)


def anchors(text: str) -> list[str]:
    """Returns the anchors of a page's headings: those set, or made from the heading."""
    found = []
    pattern = r"^#+ (.*?)(?: \{: #([\w-]+) \})?$"
    for heading, named in re.findall(pattern, without_blocks(text), re.M):
        words = re.sub(r"[^\w\s-]", "", heading).strip().lower()
        found.append(named or re.sub(r"[-\s]+", "-", words))
    return found


def leaves(top: argparse.ArgumentParser) -> Iterator[argparse.ArgumentParser]:
    """Yields the parsers of a parser's commands that have no commands of their own."""
    if hasattr(top, "add_lazy_arguments"):
        top.add_lazy_arguments()
    actions = [action for action in top._actions if isinstance(action, argparse._SubParsersAction)]
    if not actions:
        yield top
    for action in actions:
        for command in action.choices.values():
            yield from leaves(command)


def plain(text: str) -> str:
    """Returns a text without what marks code, escapes or quotes in Markdown and in help texts."""
    return re.sub(r"[`'\\]", "", text)


def test_every_page_is_in_the_navigation_once():
    nav = (ROOT / "mkdocs.yml").read_text(encoding="utf-8").partition("\nnav:\n")[2]
    listed = re.findall(r"[\w/-]+\.md", re.sub(r"#.*", "", nav.partition("\n\n")[0]))
    pages = [path.relative_to(DOCS).as_posix() for path in DOCS.rglob("*.md")]
    assert sorted(listed) == sorted([*pages, "contributing.md", "changelog.md"])


def test_links_between_pages_and_their_anchors_resolve():
    pages = written_pages() | generated_pages()
    broken = []
    for page, text in pages.items():
        for link in re.findall(r"\]\(([^)\s]+)\)", without_blocks(text)):
            target, _, anchor = link.partition("#")
            path = (page.parent / target).resolve() if target else page
            if "://" in link:
                continue
            found = path in pages or path.exists()
            if not found or (anchor and anchor not in anchors(pages[path])):
                broken.append(f"{page.relative_to(ROOT)}: {link}")
    assert not broken, "\n".join(broken)


def test_headings_of_a_page_have_anchors_of_their_own():
    for page, text in (written_pages() | generated_pages()).items():
        found = anchors(text)
        assert len(found) == len(set(found)), f"{page}: {sorted(found)}"


@pytest.mark.parametrize("package", PACKAGES)
def test_every_public_name_is_in_the_python_reference(package):
    marker = f"<!-- names of {package} -->"
    (page,) = [text for text in written_pages().values() if marker in text]
    documented = re.findall(r"^::: ([\w.]+)$", public_names.expand_names(page), re.M)
    samplers = [f"effcap.samplers.{name}" for name in ("Beam", "Greedy", "Nucleus")]
    elsewhere = ["effcap.__version__", *(name.replace("samplers.", "") for name in samplers)]
    names = [f"{package}.{name}" for name in importlib.import_module(package).__all__]
    assert sorted(documented) == sorted(name for name in names if name not in elsewhere)
    assert package != "effcap.samplers" or set(samplers) <= set(documented)


def test_every_command_and_option_is_in_the_reference_with_its_help():
    pages = command_pages.command_pages()
    missing = []
    for command in leaves(parser()):
        _, name, *source = command.prog.split()
        text = pages[f"commands/effcap-{name}.md"]
        assert f"effcap {' '.join([name, *source])} [OPTIONS]" in text
        formatter = command._get_formatter()
        for action in command._actions:
            help_text = plain(formatter._expand_help(action).split(" (default: ")[0])
            words = action.option_strings or action.choices or [action.metavar]
            found = all(re.search(rf"`(.*[, {{])?{re.escape(word)}\b", text) for word in words)
            if action.dest != "help" and not (found and help_text in plain(text)):
                missing.append(f"{command.prog}: {words}")
    assert not missing, "\n".join(missing)


def test_options_show_their_defaults():
    text = command_pages.command_pages()["commands/effcap-caption.md"]
    assert "`--num-beams N`\n:   number of hypotheses per image\n\n    Default: `5`" in text
    assert "`--keys KEY [KEY ...]`" in text and "    Default: all in `--features`" in text


def test_options_that_all_sources_of_training_share_are_listed_once():
    text = command_pages.command_pages()["commands/effcap-train.md"]
    own, shared = text.split("## Options of all sources")
    assert "`--learning-rate X`" in shared and "`--learning-rate X`" not in own
    assert "`--folder DIR [DIR ...]`" in own and "`--folder DIR" not in shared


@pytest.mark.parametrize(
    ("source", "names"),
    (
        ("__all__ = ['a', 'b']", ["a", "b"]),
        ("N = {'a': '.x', 'b': '.y'}\n__all__ = list(N)", ["a", "b"]),
        ("N = {'b': '.y'}\n__all__ = ['a', *N]", ["a", "b"]),
    ),
)
def test_names_are_read_from_literal_lists(source, names, tmp_path, monkeypatch):
    (tmp_path / "__init__.py").write_text(source)
    monkeypatch.setattr(public_names, "source_of", lambda package: tmp_path / "__init__.py")
    assert public_names.public_names("effcap.any") == names


def test_computed_names_are_an_error(tmp_path, monkeypatch):
    (tmp_path / "__init__.py").write_text("__all__ = sorted(globals())")
    monkeypatch.setattr(public_names, "source_of", lambda package: tmp_path / "__init__.py")
    with pytest.raises(ValueError, match=r"Received: sorted\(globals\(\)\)"):
        public_names.public_names("effcap.any")


def test_the_site_asks_nothing_of_other_hosts():
    config = (ROOT / "mkdocs.yml").read_text(encoding="utf-8")
    assert "font: false" in config and "://" not in config
    for path in (DOCS / "assets").rglob("*"):
        if path.suffix in (".css", ".js"):
            assert "://" not in path.read_text(encoding="utf-8"), path
