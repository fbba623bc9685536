"""Filters for the photos and captions of shards."""

from __future__ import annotations

import dataclasses
import json
import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple

from effcap.images import UnreadablePhoto, load_photo, upright_size
from effcap.trainers.data.text_files import MAX_TEXT
from effcap.trainers.data.truncated_jpeg import TRUNCATED, ends_early

CHECK_VERSION = 1  # increased when the same options give other results
REDUCTION = 4  # photos are decoded at 1/4 of their sides, in half the time
MIN_SIDE = 32  # pixels of a reduced photo
PERSON = re.compile(r"<PERSON>", re.IGNORECASE)


class Fault(NamedTuple):
    """Why something is left out: a reason that is counted, and the details."""

    reason: str
    detail: str = ""


@dataclass(frozen=True, kw_only=True)
class Filters:
    """Options of `index_shards`: which photos and captions to keep.

    Attributes:
        caption: source of captions: txt, a field of json (a text or a list of texts), or auto: the
            list "captions" of json, else txt, else "caption" of json.
        min_side: minimum width and height of a photo, in pixels.
        min_words: minimum number of words per caption.
        max_words: maximum number of words per caption (default: no limit).
        max_duplicates: maximum occurrences of a caption over all shards; the first ones are kept
            (default: no limit).
        match: regular expression that captions must contain.
        reject: regular expression that captions must not contain.
        persons: treatment of captions with cc12m's <PERSON>: keep, drop, or a word such as person
            that replaces it.
        edit: function applied to every caption; it must be importable, since its name is part of
            the key of an index.

    Raises:
        ValueError: a value is out of range, not a regular expression, or `edit` is not importable.
    """

    caption: str = "auto"
    min_side: int = 0
    min_words: int = 1
    max_words: int | None = None
    max_duplicates: int | None = None
    match: str | None = None
    reject: str | None = None
    persons: str = "keep"
    edit: Callable[[str], str] | None = None

    def __post_init__(self) -> None:
        for name, minimum in (
            ("min_side", 0), ("min_words", 0), ("max_words", self.min_words), ("max_duplicates", 1),
        ):  # fmt: skip
            value = getattr(self, name)
            if value is not None and value < minimum:
                raise ValueError(f"Expected {name} of at least {minimum}. Received: {name}={value}")
        for name in ("match", "reject"):
            try:
                re.compile(getattr(self, name) or "")
            except re.error as error:
                raise ValueError(
                    f"Expected a regular expression as {name}. "
                    f"Received: {getattr(self, name)!r}: {error}"
                ) from None
        for name in ("caption", "persons"):
            if not getattr(self, name).strip():
                raise ValueError(f"Expected a word as {name}. Received: {getattr(self, name)!r}")
        if self.edit is not None and "<" in getattr(self.edit, "__qualname__", "<"):
            raise ValueError(f"Expected edit to be a function of a module. Received: {self.edit!r}")

    @property
    def key(self) -> str:
        """The options as text; an index made with another key is out of date."""
        edit = self.edit and f"{self.edit.__module__}.{self.edit.__qualname__}"
        fields = {**dataclasses.asdict(self), "edit": edit, "checked": CHECK_VERSION}
        return json.dumps(fields, sort_keys=True)

    def image_fault(self, data: bytes) -> Fault | None:
        """Returns the fault of a photo, given as the bytes of its file; None if it is usable."""
        try:
            width, height = upright_size(data)
            size = (max(MIN_SIDE, height // REDUCTION), max(MIN_SIDE, width // REDUCTION))
            pixels = load_photo(data, size)  # (h, w, 3)
        except UnreadablePhoto as error:
            return Fault("image unreadable", error.reason)
        if ends_early(data, pixels):
            return Fault("image unreadable", TRUNCATED)
        if min(width, height) < self.min_side:
            return Fault("image too small", f"{width}x{height}")
        return None

    def edit_caption(self, text: Any) -> str | Fault:
        """Returns the edited caption, or the fault if it is left out."""
        if not isinstance(text, str):
            return Fault("caption is not text", shorten(text))
        text = text.strip()
        has_person = PERSON.search(text) is not None
        if has_person and self.persons == "drop":
            return Fault("caption has <PERSON>", shorten(text))
        if has_person and self.persons != "keep":
            text = PERSON.sub(lambda match: self.persons, text)
        if self.edit is not None:
            text = self.edit(text).strip()
        num_words = len(text.split())
        if not text:
            return Fault("caption empty")
        if len(text) > MAX_TEXT or "\0" in text or not _is_unicode(text):
            return Fault("caption is not text", shorten(text))
        if num_words < self.min_words:
            return Fault("caption too short", shorten(text))
        if self.max_words is not None and num_words > self.max_words:
            return Fault("caption too long", shorten(text))
        if self.match is not None and not re.search(self.match, text):
            return Fault("caption does not match", shorten(text))
        if self.reject is not None and re.search(self.reject, text):
            return Fault("caption rejected", shorten(text))
        return text


def _is_unicode(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:  # a lone surrogate
        return False
    return True


def shorten(value: Any) -> str:
    """Returns the first 200 characters of a value, printable as UTF-8."""
    text = value if isinstance(value, str) else repr(value)
    return text[:200].encode(errors="backslashreplace").decode()
