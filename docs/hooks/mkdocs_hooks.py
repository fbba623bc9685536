"""Hooks of the documentation site: pages that are generated, and links that leave docs/."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT))

from command_pages import command_pages, command_table  # noqa: E402
from public_names import expand_names  # noqa: E402

from start import link_packages  # noqa: E402

TABLE = "<!-- table of commands -->"  # replaced by a table with links to their pages
ROOT_PAGES = {"CONTRIBUTING.md": "contributing.md", "CHANGELOG.md": "changelog.md"}


def on_startup(**_: Any) -> None:
    """Links the package for mkdocstrings, which looks for the folder when its settings are read."""
    link_packages()


def on_config(config: MkDocsConfig) -> None:
    """Adds the pages of the commands to the navigation."""
    add_after(config.nav, "commands/index.md", [{title_of(page): page} for page in command_pages()])


def add_after(entries: list[Any], page: str, added: list[dict[str, str]]) -> bool:
    """Adds entries to the section of the navigation that holds a page; returns whether it does."""
    if page in entries:
        entries += added
        return True
    sections = [value for entry in entries if isinstance(entry, dict) for value in entry.values()]
    return any(add_after(value, page, added) for value in sections if isinstance(value, list))


def title_of(page: str) -> str:
    """Returns the title of a command's page in the navigation."""
    return Path(page).stem.replace("-", " ")


def on_files(files: Files, config: MkDocsConfig) -> None:
    """Adds the commands, the pages of the repository's root and the pictures of res/."""
    for page, text in command_pages().items():
        files.append(File.generated(config, page, content=text))
    for source, page in ROOT_PAGES.items():
        files.append(File.generated(config, page, content=(ROOT / source).read_text("utf-8")))
    for picture in sorted((ROOT / "res").rglob("*.jpg")):
        name = picture.relative_to(ROOT).as_posix()
        files.append(File.generated(config, name, abs_src_path=str(picture)))


def on_page_markdown(markdown: str, page: Any, **_: Any) -> str:
    """Points links out of docs/ at what `on_files` added, and fills in what is generated."""
    if page.file.src_uri in ROOT_PAGES.values():
        markdown = markdown.replace("](docs/", "](")
    markdown = markdown.replace("../res/", "res/")
    for source, target in ROOT_PAGES.items():
        markdown = markdown.replace(f"../{source}", target)
    return expand_names(markdown.replace(TABLE, command_table()))
