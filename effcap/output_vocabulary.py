"""Output vocabularies: the tokens that captions may be made of, for a smaller output projection."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property, lru_cache
from itertools import islice, pairwise
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from effcap.tokenizers import Tokenizer

CHUNK = 10_000  # captions that are encoded at once
RANGES = re.compile(r"[0-9]+(-[0-9]+)?( [0-9]+(-[0-9]+)?)*")
MULTIPLE = 64  # the number of tokens of a call is rounded up, so that few programs are compiled


def format_tokens(tokens: Iterable[int]) -> str:
    """Returns tokens as ranges in ascending order, such as "0-255 262 264-266"."""
    ids = sorted(set(tokens))
    starts = [i for i, (a, b) in enumerate(pairwise([-2, *ids])) if b != a + 1]
    ranges = [(ids[i], ids[j - 1]) for i, j in pairwise([*starts, len(ids)])]
    return " ".join(str(a) if a == b else f"{a}-{b}" for a, b in ranges)


@lru_cache(maxsize=16)
def parse_tokens(text: str) -> tuple[int, ...]:
    """Returns the tokens that `format_tokens` wrote, in ascending order.

    Raises:
        ValueError: the text is not of that form, or names no tokens.
    """
    tokens: list[int] = []
    if RANGES.fullmatch(text):
        for part in text.split(" "):
            first, _, last = part.partition("-")
            tokens += range(int(first), int(last or first) + 1) or [-1]
    if not tokens or tokens[0] < 0 or any(a >= b for a, b in pairwise(tokens)):
        raise _wrong_form(text)
    return tuple(tokens)


def check_output_vocabulary(text: str | None, vocabulary_size: int) -> None:
    """Checks the output vocabulary of a decoder; None is the whole vocabulary.

    Raises:
        ValueError: the text is not of the form of `format_tokens`, or a token is too large.
    """
    if text is None:
        return
    if not isinstance(text, str):
        raise _wrong_form(text)
    largest = max(map(int, re.findall("[0-9]+", text)), default=0)  # before long ranges are listed
    if largest >= vocabulary_size:
        raise ValueError(
            f"Expected an output_vocabulary of tokens below vocabulary_size={vocabulary_size}. "
            f"Received: {largest}"
        )
    parse_tokens(text)


def _wrong_form(value: Any) -> ValueError:
    return ValueError(
        "Expected an output_vocabulary as ranges of tokens in ascending order, such as "
        f"'0-255 262'. Received: output_vocabulary={value!r}"
    )


def caption_tokens(captions: Iterable[str], tokenizer: Tokenizer) -> set[int]:
    """Returns the tokens that captions are made of, and those that spell any other text.

    These are the tokens of each caption, alone and after other text, the end token, and all
    tokens of a single byte: with a byte-level vocabulary every text can be written.

    Args:
        captions: any number of captions; they need not fit into memory together.
        tokenizer: tokenizer of the captions.

    Raises:
        ValueError: there are no captions.
    """
    tokens: set[int] = set()
    stream = iter(captions)
    while chunk := list(islice(stream, CHUNK)):
        texts = [form for text in chunk for form in (text.strip(), f" {text.strip()}")]
        for ids in tokenizer.encode_batch(texts):
            tokens.update(ids)
    if not tokens:
        raise ValueError(
            "Expected captions with the tokens of an output vocabulary. Received: none"
        )
    pieces = tokenizer.token_bytes()
    tokens.update(token for token, piece in enumerate(pieces) if len(piece.strip(b" ")) == 1)
    tokens.update(token for token, piece in enumerate(pieces) if piece == b" ")
    return tokens | {tokenizer.eos_id}


@dataclass(frozen=True)
class CallVocabulary:
    """The tokens of one call of a sampler, which numbers them from 0 to N - 1.

    First come those of the output vocabulary in ascending order, then those that the call needs
    besides. A sampler of this vocabulary never sees any others.

    Attributes:
        num_fixed: number of tokens of the output vocabulary, whose numbers are the same in all
            calls.
        tokens: int32 (N,), ids of the tokenizer. The last are filled up with the end token.
        can_output: bool (N,), whether a token can be generated. One that cannot has a logit of
            -inf, and is there because a prefix contains it.
    """

    num_fixed: int
    tokens: np.ndarray
    can_output: np.ndarray

    @classmethod
    def create(
        cls, text: str, eos: int, added: Iterable[int], context: Iterable[int]
    ) -> CallVocabulary:
        """Returns the vocabulary of a call.

        Args:
            text: output vocabulary, as from `format_tokens`.
            eos: id of the end token, which is always part of it.
            added: tokens that can be generated in this call, too.
            context: tokens before the captions.
        """
        fixed = {*parse_tokens(text), eos}
        more = {*added} - fixed
        given = {*context} - fixed - more
        ids = [*sorted(fixed), *sorted(more), *sorted(given)]
        size = -(-len(ids) // MULTIPLE) * MULTIPLE
        tokens = np.full(size, eos, np.int32)  # (N,)
        tokens[: len(ids)] = ids
        return cls(len(fixed), tokens, np.arange(size) < len(fixed) + len(more))

    def __len__(self) -> int:
        return len(self.tokens)

    @cached_property
    def numbers(self) -> dict[int, int]:
        """Number of each token by its id."""
        return {token: number for number, token in reversed([*enumerate(self.tokens.tolist())])}
