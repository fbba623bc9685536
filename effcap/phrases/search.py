"""Finds phrases as whole words in text."""

from __future__ import annotations

import re
from collections.abc import Sequence
from functools import lru_cache

from effcap.phrases.characters import is_word_character, normalize


def contains(text: str, phrase: str) -> bool:
    """Returns whether a text contains a phrase as whole words, in upper or lower case.

    Spaces before and after punctuation do not count: WordPiece captions have them.
    """
    lower = normalize(text)
    return any(_is_whole(lower, match) for match in _pattern(phrase).finditer(lower))


def missing_groups(text: str, groups: Sequence[Sequence[str]]) -> tuple[str, ...]:
    """Returns the groups of which a text contains no phrase, with "|" between alternatives."""
    return tuple(
        "|".join(group) for group in groups if not any(contains(text, phrase) for phrase in group)
    )


@lru_cache(maxsize=1024)
def _pattern(phrase: str) -> re.Pattern[str]:
    spaced = (x if is_word_character(x) else f" {x} " for x in normalize(phrase))
    pattern, after_word = "", False
    for unit in "".join(spaced).split():  # words, and single other characters
        is_word = is_word_character(unit[0])
        space = r"\s+" if is_word and after_word else r"\s*"
        pattern += (space if pattern else "") + re.escape(unit)
        after_word = is_word
    return re.compile(f"(?=({pattern}))")  # a lookahead, because matches may overlap


def _is_whole(text: str, match: re.Match[str]) -> bool:
    start, end = match.span(1)
    return not (_is_inside_word(text, start) or _is_inside_word(text, end))


def _is_inside_word(text: str, index: int) -> bool:
    """Returns whether the characters before and at an index belong to one word."""
    return 0 < index < len(text) and all(map(is_word_character, text[index - 1 : index + 1]))
