"""Byte-level BPE models of the `tokenizers` library: construction, training and checks."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

import tokenizers
from tokenizers import decoders, models, pre_tokenizers, trainers

END_OF_TEXT = "<|endoftext|>"
ALPHABET = tuple(sorted(pre_tokenizers.ByteLevel.alphabet()))  # one printable character per byte


def alphabet_bytes() -> dict[str, int]:
    """Returns the byte that each character of the alphabet stands for.

    Printable bytes stand for themselves; the others are numbered from U+0100 on.
    """
    printable = {character: ord(character) for character in ALPHABET if character < "\u0100"}
    others = [byte for byte in range(256) if byte not in printable.values()]
    return {**printable, **dict(zip(ALPHABET[len(printable) :], others, strict=True))}


def make_backend(model: models.BPE) -> tokenizers.Tokenizer:
    """Returns a byte-level tokenizer around a BPE model."""
    backend = tokenizers.Tokenizer(model)
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    backend.decoder = decoders.ByteLevel()
    return backend


def train_backend(
    captions: Sequence[str], vocabulary_size: int, min_frequency: int
) -> tokenizers.Tokenizer:
    """Learns a vocabulary of at most `vocabulary_size` tokens, the last one `<|endoftext|>`."""
    learner = tokenizers.Tokenizer(models.BPE())
    learner.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    learner.train_from_iterator(
        captions,
        trainers.BpeTrainer(
            vocab_size=vocabulary_size - 1,
            min_frequency=min_frequency,
            initial_alphabet=list(ALPHABET),
            show_progress=False,
        ),
    )
    learned = json.loads(learner.to_str())["model"]
    vocabulary = {**learned["vocab"], END_OF_TEXT: len(learned["vocab"])}
    return make_backend(models.BPE(vocabulary, merge_pairs(learned["merges"])))


def merge_pairs(merges: list[Any]) -> list[tuple[str, str]]:
    """Returns merges as pairs; files of older library versions hold them as "left right"."""
    return [tuple(m.split(" ") if isinstance(m, str) else m) for m in merges]


def check_byte_level(backend: tokenizers.Tokenizer, source: str) -> None:
    """Checks that a tokenizer is a byte-level BPE over all 256 bytes without gaps in its ids.

    Raises:
        ValueError: it is not; `source` names it in the message.
    """
    if not isinstance(backend.model, models.BPE):
        raise ValueError(
            f"Expected a byte-level BPE in {source}. Received: {type(backend.model).__name__}"
        )
    if backend.normalizer is not None:
        raise ValueError(
            f"Expected a tokenizer that does not normalize text in {source}. Received: the "
            f"normalizer {type(backend.normalizer).__name__}"
        )
    vocabulary = backend.get_vocab(with_added_tokens=False)
    missing = [character for character in ALPHABET if character not in vocabulary]
    if missing:
        raise ValueError(
            f"Expected all 256 bytes in the vocabulary of {source}. Received: a vocabulary "
            f"without {len(missing)} of them, such as {missing[0]!r}"
        )
    check_ids(backend, source)


def check_ids(backend: tokenizers.Tokenizer, source: str) -> None:
    """Checks that the ids of a vocabulary have no gaps and added tokens follow the others.

    Raises:
        ValueError: they do not; `source` names the tokenizer in the message.
    """
    vocabulary = backend.get_vocab(with_added_tokens=False)
    ids = set(backend.get_vocab(with_added_tokens=True).values())
    is_complete = max(ids) + 1 == len(ids) == backend.get_vocab_size()
    if not is_complete or max(vocabulary.values()) >= len(vocabulary):
        raise ValueError(
            f"Expected ids without gaps in {source}, the vocabulary before the added tokens. "
            f"Received: {len(ids)} ids, the highest of them {max(ids)}"
        )


def find_special_tokens(backend: tokenizers.Tokenizer, source: str) -> tuple[str, str, str]:
    """Returns the start, end and padding tokens: those of the file, else GPT-2's convention.

    Raises:
        ValueError: one of them is not in the vocabulary; `source` names it in the message.
    """
    special = template_tokens(backend)
    start, end = (special[0], special[-1]) if special else (END_OF_TEXT, END_OF_TEXT)
    padding = (backend.padding or {}).get("pad_token", end)
    for token in (start, end, padding):
        if backend.token_to_id(token) is None:
            raise ValueError(
                f"Expected {token!r} in the vocabulary of {source}, as the start, end or padding "
                f"token. Received: {backend.get_vocab_size()} tokens without it"
            )
    return start, end, padding


def template_tokens(backend: tokenizers.Tokenizer) -> list[str]:
    """Returns the special tokens that a tokenizer puts around a text, in their order."""
    processor = backend.post_processor
    template = json.loads(processor.__getstate__()) if processor is not None else {}
    single = template.get("single", []) if template.get("type") == "TemplateProcessing" else []
    return [piece["SpecialToken"]["id"] for piece in single if "SpecialToken" in piece]


def is_text(backend: tokenizers.Tokenizer, token: str) -> bool:
    """Returns whether a token of the vocabulary is what some text is encoded to."""
    added = backend.get_added_tokens_decoder().values()
    if any(token == other.content for other in added):
        return False
    index = token_id(backend, token)
    return backend.encode(backend.decode([index]), add_special_tokens=False).ids == [index]


def token_id(backend: tokenizers.Tokenizer, token: str) -> int:
    """Returns the id of a token.

    Raises:
        KeyError: the token is not in the vocabulary.
    """
    index = backend.token_to_id(token)
    if index is None:
        raise KeyError(token)
    return index


def check_text(text: Any, name: str) -> str:
    """Returns `text` if it is a str that UTF-8 can encode.

    Raises:
        TypeError: it is not a str.
        ValueError: it holds a lone surrogate.
    """
    if not isinstance(text, str):
        raise TypeError(f"Expected {name} to be a str. Received: {text!r}")
    try:
        text.encode("utf-8")
    except UnicodeEncodeError as error:
        raise ValueError(
            f"Expected {name} to be text that UTF-8 can encode. Received: the lone surrogate "
            f"U+{ord(text[error.start]):04X} at position {error.start} of {text[:50]!r}"
        ) from None
    return text
