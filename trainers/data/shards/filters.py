"""Which photos and captions of shards are kept, and how captions are edited."""

from __future__ import annotations

import dataclasses
import json
import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple

from effcap.images import UnreadablePhoto, load_photo, upright_size
from effcap.trainers.data.truncated_jpeg import ends_early

CHECKED = 1  # goes up when the same options give other results
REDUCED = 4  # photos are read whole, but at this part of their sides, which takes half the time
LEAST_SIDE = 32  # pixels
LONGEST_TEXT = 2**17  # characters: more than 1024 tokens can hold
PERSON = re.compile(r"<PERSON>", re.IGNORECASE)


class Fault(NamedTuple):
    """Why something is left out: a reason to count by, and the particulars."""

    reason: str
    detail: str = ""


@dataclass(frozen=True, kw_only=True)
class Filters:
    """What `index_shards` keeps.

    Args:
        caption: where captions are found. "auto": the list `captions` of the json member where
            there is one, else the txt member, else `caption` of json; "txt"; or the name of a field
            of json, a text or a list of texts.
        min_side: of a photo, in pixels.
        min_words, max_words: of a caption.
        max_duplicates: a caption is kept so often over all shards, in their order; None for always.
        match, reject: regular expressions that a caption must have, or must not have, in it.
        persons: what becomes of a caption with cc12m's mark `<PERSON>`: "keep", "drop", or a word
            such as "person" that takes the mark's place.
        edit: applied to every caption; a function of a module, by whose name an index is known.

    Raises:
        ValueError: for values out of range, no regular expression, or an `edit` without a name.
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
        for name, least in (
            ("min_side", 0), ("min_words", 0), ("max_words", self.min_words), ("max_duplicates", 1),
        ):  # fmt: skip
            value = getattr(self, name)
            if value is not None and value < least:
                raise ValueError(f"Expected {name} of at least {least}. Received: {name}={value}")
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
            raise ValueError(f"Expected edit as a function of a module. Received: {self.edit!r}")

    @property
    def key(self) -> str:
        """The options as text: with other ones, shards must be checked anew."""
        edit = self.edit and f"{self.edit.__module__}.{self.edit.__qualname__}"
        fields = {**dataclasses.asdict(self), "edit": edit, "checked": CHECKED}
        return json.dumps(fields, sort_keys=True)

    def image_fault(self, data: bytes) -> Fault | None:
        """Why a photo, given as the bytes of its file, cannot be used; None where it can."""
        try:
            width, height = upright_size(data)
            size = (max(LEAST_SIDE, height // REDUCED), max(LEAST_SIDE, width // REDUCED))
            pixels = load_photo(data, size)  # (h, w, 3)
        except UnreadablePhoto as error:
            return Fault("image unreadable", error.reason)
        if ends_early(data, pixels):
            return Fault("image unreadable", "truncated: its data end before the picture does")
        if min(width, height) < self.min_side:
            return Fault("image too small", f"{width}x{height}")
        return None

    def edited(self, text: Any) -> str | Fault:
        """A caption as it is kept, or why it is not."""
        if not isinstance(text, str):
            return Fault("caption is no text", short(text))
        text = text.strip()
        marks = PERSON.search(text) is not None
        if marks and self.persons == "drop":
            return Fault("caption has <PERSON>", short(text))
        if marks and self.persons != "keep":
            text = PERSON.sub(lambda match: self.persons, text)
        if self.edit is not None:
            text = self.edit(text).strip()
        words = len(text.split())
        if not text:
            return Fault("caption empty")
        if len(text) > LONGEST_TEXT or "\0" in text or not _is_unicode(text):
            return Fault("caption is no text", short(text))
        if words < self.min_words:
            return Fault("caption too short", short(text))
        if self.max_words is not None and words > self.max_words:
            return Fault("caption too long", short(text))
        if self.match is not None and not re.search(self.match, text):
            return Fault("caption lacks the match", short(text))
        if self.reject is not None and re.search(self.reject, text):
            return Fault("caption rejected", short(text))
        return text


def _is_unicode(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:  # half a character
        return False
    return True


def short(value: Any) -> str:
    """A value in a few words that can be printed."""
    text = value if isinstance(value, str) else repr(value)
    return text[:200].encode(errors="backslashreplace").decode()
