"""Splits captions into the words that metrics count.

COCO's scores are computed on the tokens of Stanford's Penn Treebank tokenizer, lower-cased and
without punctuation (Chen et al., "Microsoft COCO Captions: Data Collection and Evaluation Server",
2015). The rules in `ptb_rules` reproduce them without Java. They are English; for captions in other
languages there are Unicode's words and characters (Unicode Standard Annex #29).
"""

from __future__ import annotations

import re
import string
import unicodedata
from collections.abc import Callable, Iterable
from functools import cache
from itertools import islice
from typing import Any

from effcap.metrics.ptb_rules import (
    BRACKETS,
    DROPPED,
    ENTITIES,
    ENTITY,
    SIGN,
    SIGN_RULES,
    SPELLINGS,
    SPLIT_WORDS,
    WORD_RULES,
)

# Fast patterns for nearly all of a caption; the rules handle the rest.
_SPACE = re.compile(r"(?:[\s\U00010000-\U0010ffff]|[.,](?!\S))+")
_PLAIN_WORD = re.compile(r"[A-Za-z]+(?![^\s,;)\"])")

_SIGN = re.compile(SIGN).match
_WORD_RULES = [re.compile(rule).match for rule in WORD_RULES.values()]
_SIGN_RULES = {
    sign: [re.compile(rule).match for signs, rule in SIGN_RULES.values() if sign in signs]
    for sign in string.punctuation
}


# Oniguruma's patterns for words and for characters with their accents and signs.
_SEGMENTS = {"unicode": r"(?y{w})\X", "char": r"\X"}
MAX_PROBED = 1000  # captions that decide whether a script is Latin


def tokenize(caption: str, tokenization: str = "ptb") -> list[str]:
    """Returns the words of a caption in lower case, without punctuation.

    Args:
        caption: text of one caption; a line end counts as a space.
        tokenization: "ptb" for the words of pycocoevalcap's tokenizer: `"Don't, it's a T-shirt!"`
            gives `["do", "n't", "it", "'s", "a", "t-shirt"]`. Brackets are kept, as `-lrb-` and
            `-rrb-`. "unicode" for the words of any language that separates them, such as
            `["don't", "it's", "a", "t", "shirt"]`, "char" for characters, for scripts without
            spaces; both without segments that have no letter or digit.

    Raises:
        TypeError: `caption` is not a str.
        ValueError: there is no such tokenization.
    """
    if not isinstance(caption, str):
        raise TypeError(f"Expected a caption as text. Received: {caption!r}")
    return TOKENIZATIONS[check_tokenization(tokenization)](caption)


def check_tokenization(tokenization: str) -> str:
    """Returns the name of a tokenization.

    Raises:
        ValueError: there is none of that name.
    """
    if tokenization not in TOKENIZATIONS:
        raise ValueError(
            f"Expected tokenization out of {', '.join(TOKENIZATIONS)}. "
            f"Received: tokenization={tokenization!r}"
        )
    return tokenization


def ptb_words(caption: str) -> list[str]:
    """Returns the words of a caption, as pycocoevalcap's tokenizer does."""
    text = _normalize(caption)
    words = []
    start = 0
    while start < len(text):
        if space := _SPACE.match(text, start):
            start = space.end()
        elif word := _PLAIN_WORD.match(text, start):
            words += _words(word[0])
            start = word.end()
        elif end := _token_end(text, start):
            words += _words(text[start:end])
            start = end
        else:  # characters without a rule, such as control characters
            start += 1
    return words


def unicode_words(caption: str) -> list[str]:
    """Returns the words of a caption between Unicode's word boundaries."""
    return _segments(caption, "unicode")


def characters(caption: str) -> list[str]:
    """Returns the letters and digits of a caption, each with its accents and vowel signs."""
    return _segments(caption, "char")


def _segments(caption: str, kind: str) -> list[str]:
    text = unicodedata.normalize("NFC", caption).lower()
    segments = _splitter(kind).pre_tokenize_str(text)
    return [segment for segment, _ in segments if any(map(str.isalnum, segment))]


@cache
def _splitter(kind: str) -> Any:
    from tokenizers import Regex
    from tokenizers.pre_tokenizers import Split

    return Split(Regex(_SEGMENTS[kind]), "isolated")


TOKENIZATIONS: dict[str, Callable[[str], list[str]]] = {
    "ptb": ptb_words,
    "unicode": unicode_words,
    "char": characters,
}


def language_note(captions: Iterable[str], tokenization: str) -> str:
    """Returns a warning if English words are counted in another script than Latin; otherwise "".

    Args:
        captions: captions, of which the first 1,000 count.
        tokenization: name of the tokenization.
    """
    letters = [c for text in islice(captions, MAX_PROBED) for c in text if c.isalpha()]
    if tokenization != "ptb" or 2 * sum(c < "\u0250" for c in letters) >= len(letters):
        return ""
    return (
        "the captions are not in Latin script, but the words of tokenization 'ptb' are English: "
        "choose 'unicode', or 'char' for a script without spaces (--tokenize)"
    )


def _normalize(caption: str) -> str:
    """Returns the caption with one spelling per accent, quotation mark, dash and fraction."""
    if "&" in caption:
        caption = ENTITY.sub(lambda match: ENTITIES[match[0].lower()], caption)
    if caption.isascii():
        return caption
    return unicodedata.normalize("NFC", caption).translate(SPELLINGS)


def _token_end(text: str, start: int) -> int:
    """Returns the end of the longest token that begins at `start`; 0 if there is none."""
    rules = _SIGN_RULES.get(text[start], _WORD_RULES)
    ends = [match.end() for rule in rules if (match := rule(text, start))]
    if ends:
        return max(ends)
    return start + 1 if _SIGN(text, start) else 0


def _words(token: str) -> list[str]:
    """Returns the words of a token: none for punctuation, two for `cannot`."""
    token = token.lower()
    if token in DROPPED:
        return []
    return SPLIT_WORDS.get(token) or token.translate(BRACKETS).split()
