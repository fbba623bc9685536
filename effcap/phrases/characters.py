"""Characters of words, and of the bytes of a token that is not made of whole characters."""

from __future__ import annotations

import codecs
import re
import unicodedata
from collections.abc import Iterable, Mapping
from functools import lru_cache

from effcap.tokenizers.wordpiece import CJK

# Symbols that stand for all characters that occur in no phrase.
SPACE, OTHER, WORD, UNKNOWN = range(4)  # UNKNOWN: a letter or not, its bytes are in several tokens
NUM_SYMBOLS = 4  # characters of phrases have the symbols from this one on

_CONTINUATION = bytes(range(0x80, 0xC0))  # bytes of a character after its first
_decoder = codecs.getincrementaldecoder("utf-8")
_CJK = re.compile(f"[{CJK}]")


@lru_cache(maxsize=4096)
def is_word_character(character: str) -> bool:
    """Returns whether a character belongs to words that spaces separate.

    Letters, digits and marks do. Those of Chinese and Japanese do not: a phrase may begin and end
    between any two of them.
    """
    is_letter = character.isalnum() or character == "_" or unicodedata.category(character)[0] == "M"
    return is_letter and not _CJK.match(character)


def normalize(text: str) -> str:
    """Returns a phrase in lower case with single spaces, as phrases are compared."""
    return " ".join(text.lower().split())


def split_prefixes(characters: Iterable[str]) -> list[bytes]:
    """Returns the first bytes of characters of several bytes, in either case, without the last."""
    cased = {case for x in characters for case in (x, x.upper(), x.title()) if len(case) == 1}
    encoded = [x.encode() for x in cased]
    return sorted({x[:end] for x in encoded for end in range(1, len(x))})


def read_symbols(
    data: bytes, symbols: Mapping[str, int], pending: bytes, prefixes: Iterable[bytes]
) -> tuple[tuple[int, ...], bytes]:
    """Reads the symbols of a token's bytes.

    Args:
        data: bytes of the token.
        symbols: symbol of each character of the phrases.
        pending: first bytes of a character at the end of the token before; b"" for none.
        prefixes: first bytes of the characters of the phrases, of which the rest is waited for. The
            beginning of any other character is UNKNOWN, and its rest is skipped.

    Returns:
        The symbols, without repeated ones that make no difference, and the pending bytes.
    """
    if not pending:
        data = data.lstrip(_CONTINUATION)  # the rest of an UNKNOWN character
    decoder = _decoder("replace")
    text = decoder.decode(pending + data).lower()
    read = [symbols[x] if x in symbols else _kind(x) for x in text]
    rest = decoder.getstate()[0]
    if rest and rest not in prefixes:
        read.append(UNKNOWN)
        rest = b""
    repeated = (OTHER, WORD, UNKNOWN)
    kept = [x for i, x in enumerate(read) if not (x in repeated and i > 0 and read[i - 1] == x)]
    return tuple(kept), rest


def _kind(character: str) -> int:
    """Returns the symbol of a character that occurs in no phrase."""
    if character == "\ufffd":
        return UNKNOWN
    if character.isspace():
        return SPACE
    return WORD if is_word_character(character) else OTHER
