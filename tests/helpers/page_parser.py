"""Parses HTML pages strictly, for tests of what they show and load."""

from __future__ import annotations

import re
from html.parser import HTMLParser
from pathlib import Path

VOID = {"meta", "img", "br", "link"}


class Page(HTMLParser):
    """Tags, images, addresses and texts of a page; fails on tags that do not match.

    Attributes:
        tags: names of all opened tags.
        images: attributes of the images.
        elements: (tag, attributes) of all opened tags.
        addresses: everything that `src` and `href` refer to.
        texts: texts by the tag that directly contains them.
    """

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.tags: list[str] = []
        self.images: list[dict[str, str]] = []
        self.elements: list[tuple[str, dict[str, str]]] = []
        self.addresses: list[str] = []
        self.texts: dict[str, list[str]] = {}
        self.text = text
        self.feed(text)
        assert not self.open

    def handle_starttag(self, tag, attributes):
        attributes = dict(attributes)
        self.tags.append(tag)
        self.elements.append((tag, attributes))
        self.addresses += [attributes[key] for key in ("src", "href") if key in attributes]
        if tag == "img":
            self.images.append(attributes)
        if tag not in VOID:
            self.open.append(tag)
            self.texts.setdefault(tag, []).append("")

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        if self.open:
            self.texts[self.open[-1]][-1] += data

    def check_self_contained(self) -> None:
        """Checks that the page loads nothing and runs nothing."""
        assert all(address.startswith("data:") for address in self.addresses)
        assert not {"script", "link", "iframe", "object"} & set(self.tags)
        assert not re.search(r"@import|url\(|javascript:|\son\w+=", self.text)


def read_page(path: Path) -> Page:
    """Parses a file."""
    return Page(path.read_text(encoding="utf-8"))
