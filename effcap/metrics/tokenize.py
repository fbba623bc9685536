"""Captions into words, as the metrics of COCO count them.

COCO's scores are taken on the tokens of Stanford's Penn Treebank tokenizer, lower-cased and without
punctuation (Chen et al., "Microsoft COCO Captions: Data Collection and Evaluation Server", 2015).
Here they come without Java, from the rules in `ptb_rules`.
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
    PARTS,
    RULES_OF_SIGNS,
    RULES_OF_WORDS,
    SIGN,
    SPELLINGS,
)

# Nearly all of a caption; what they leave goes through the rules.
_NOTHING = re.compile(r"(?:[\s\U00010000-\U0010ffff]|[.,](?!\S))+")
_WORD_ALONE = re.compile(r"[A-Za-z]+(?![^\s,;)\"])")

_SIGN = re.compile(SIGN).match
_AT_WORDS = [re.compile(rule).match for rule in RULES_OF_WORDS.values()]
_AT_SIGNS = {
    sign: [re.compile(rule).match for signs, rule in RULES_OF_SIGNS.values() if sign in signs]
    for sign in string.punctuation
}


def tokenize(caption: str) -> list[str]:
    """A caption's words, as pycocoevalcap has them.

    Args:
        caption: One caption; a line end in it counts as a space.

    Returns:
        Its tokens in lower case, without punctuation: `"Don't, it's a T-shirt!"` gives
        `["do", "n't", "it", "'s", "a", "t-shirt"]`. Brackets stay, as `-lrb-` and `-rrb-`.

    Raises:
        TypeError: Where the caption is not a `str`.
    """
    if not isinstance(caption, str):
        raise TypeError(f"Expected a caption as text. Received: {caption!r}")
    text = _spelled(caption)
    words = []
    at = 0
    while at < len(text):
        if space := _NOTHING.match(text, at):
            at = space.end()
        elif word := _WORD_ALONE.match(text, at):
            words += _words(word[0])
            at = word.end()
        elif end := _end_of_token(text, at):
            words += _words(text[at:end])
            at = end
        else:  # what no text has, such as control characters
            at += 1
    return words


def _spelled(caption: str) -> str:
    """The caption with one spelling for each accent, quotation mark, dash and fraction."""
    if "&" in caption:
        caption = ENTITY.sub(lambda found: ENTITIES[found[0].lower()], caption)
    if caption.isascii():
        return caption
    return unicodedata.normalize("NFC", caption).translate(SPELLINGS)


def _end_of_token(text: str, at: int) -> int:
    """Where the longest token from `at` on ends; 0 where there is none."""
    rules = _AT_SIGNS.get(text[at], _AT_WORDS)
    ends = [found.end() for rule in rules if (found := rule(text, at))]
    if ends:
        return max(ends)
    return at + 1 if _SIGN(text, at) else 0


def _words(token: str) -> list[str]:
    """What is written for a token: nothing for punctuation, two words for `cannot`."""
    token = token.lower()
    if token in DROPPED:
        return []
    return PARTS.get(token) or token.translate(BRACKETS).split()
