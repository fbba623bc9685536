"""Splits the tokens of a caption into words."""

from __future__ import annotations

import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass

from effcap.caption import Caption
from effcap.tokenizers import Tokenizer


@dataclass(frozen=True)
class Word:
    """A word of a caption.

    Attributes:
        text: the word with punctuation that follows it.
        start, stop: the tokens that it consists of.
    """

    text: str
    start: int
    stop: int


def caption_tokens(tokenizer: Tokenizer, caption: str | Caption) -> tuple[list[int], int]:
    """Returns the tokens of a caption, and the number of those of its prefix."""
    if isinstance(caption, str):
        return tokenizer.encode_captions([caption])[0], 0
    return list(caption.tokens), len(tokenizer.encode_prefix(caption.prefix))


def split_words(tokenizer: Tokenizer, tokens: Sequence[int], start: int = 0) -> list[Word]:
    """Splits the tokens of a caption into words.

    A word starts at a space. In scripts without spaces between words (Chinese, Japanese), each
    token that starts a character is a word.

    Args:
        tokenizer: tokenizer of the tokens.
        tokens: ids of the caption's tokens.
        start: index of the first token to consider, after those of a prefix.
    """
    words: list[Word] = []
    first = start  # of the tokens whose text is not whole characters yet
    for i, added in enumerate(tokenizer.caption_pieces(tokens, start), start):
        if not added:
            continue
        if not words or _starts_word(added, words[-1].text):
            words.append(Word(added, first, i + 1))
        else:
            last = words[-1]
            words[-1] = Word(last.text + added, last.start, i + 1)
        first = i + 1
    words = [Word(word.text.strip(), word.start, word.stop) for word in words]
    return [word for word in words if word.text]


def _starts_word(added: str, before: str) -> bool:
    """Returns whether text that a token adds starts a new word."""
    if added[0].isspace():
        return True
    return bool(before.strip()) and added[0].isalnum() and (_is_wide(added) or _is_wide(before))


def _is_wide(text: str) -> bool:
    """Returns whether a text has letters of a script without spaces between words."""
    return any(unicodedata.east_asian_width(x) in "WF" for x in text if x.isalpha())
