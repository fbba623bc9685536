"""Splits captions into the words that COCO's metrics count.

COCO's scores are computed on the tokens of Stanford's Penn Treebank tokenizer, lower-cased and
without punctuation (Chen et al., "Microsoft COCO Captions: Data Collection and Evaluation Server",
2015). The rules in `ptb_rules` reproduce them without Java.
"""

from __future__ import annotations

import re
import string
import unicodedata

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


def tokenize(caption: str) -> list[str]:
    """Returns the words of a caption, as pycocoevalcap's tokenizer does.

    Args:
        caption: text of one caption; a line end counts as a space.

    Returns:
        Tokens in lower case, without punctuation: `"Don't, it's a T-shirt!"` gives
        `["do", "n't", "it", "'s", "a", "t-shirt"]`. Brackets are kept, as `-lrb-` and `-rrb-`.

    Raises:
        TypeError: `caption` is not a str.
    """
    if not isinstance(caption, str):
        raise TypeError(f"Expected a caption as text. Received: {caption!r}")
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
