"""Byte-level BPE tokenizer that round-trips every text."""

from __future__ import annotations

import hashlib
import json
import operator
from collections.abc import Iterable, Mapping, Sequence
from itertools import pairwise
from os.path import commonprefix
from pathlib import Path
from typing import Any

import tokenizers
from tokenizers import processors

from effcap.tokenizers.byte_level import (
    ALPHABET,
    END_OF_TEXT,
    alphabet_bytes,
    check_byte_level,
    check_text,
    find_special_tokens,
    is_text,
    merge_pairs,
    token_id,
    train_backend,
)
from effcap.tokenizers.tokenizer_files import (
    TOKENIZER_FILE,
    find_tokenizer_file,
    parse_backend,
    read_added_tokens,
    read_backend,
    read_vocabulary,
)


class Tokenizer:
    """Byte-level byte-pair encoding as in GPT-2 (Radford et al., 2019).

    Every text that UTF-8 can encode is returned exactly: `decode(encode(text)) == text`. Text is
    not normalized and no space is prepended, so `"a dog"` and `" a dog"` have different ids.
    Special tokens are never read from text: a caption that contains the characters
    `<|endoftext|>` is encoded as those characters and cannot end itself. The end token may also be
    an ordinary token, such as the full stop that ends ClipCap's captions; see `eos_text`.

    Create one with `from_folder` (GPT-2's files or a preset), `from_file`, `from_json` or `train`.

    Args:
        backend: byte-level BPE of the `tokenizers` library. It is modified: pass one that nothing
            else uses.
        source: name of the tokenizer in errors.

    Attributes:
        eos_id: id of the token that ends a caption (50256 for GPT-2).
        bos_id: id of the token fed before a caption (equal to `eos_id` for GPT-2).
        pad_id: id that fills padding. It may be any valid id, because padding is marked by masks.
        eos_text: text of the end token where that is part of the caption, such as "."; "" for a
            special token.
        unknown_id: id of the token for text that the vocabulary cannot spell; None for none.

    Raises:
        ValueError: `backend` is not a byte-level BPE, changes text, or has no end token.

    Example:
        >>> tokenizer = Tokenizer.from_folder("gpt2_bpe")
        >>> tokenizer.encode("Hello world")
        [15496, 995]
    """

    unknown_id: int | None = None

    def __init__(self, backend: tokenizers.Tokenizer, source: str = "tokenizer") -> None:
        check_byte_level(backend, source)
        start, end, padding = find_special_tokens(backend, source)
        self.bos_id = token_id(backend, start)
        self.eos_id = token_id(backend, end)
        self.pad_id = token_id(backend, padding)
        backend.no_truncation()  # the caller truncates and pads
        backend.no_padding()
        backend.model.dropout = None  # BPE dropout would make ids random
        backend.encode_special_tokens = True  # special tokens in text are plain text
        special = [token for token in (start, end, padding) if not is_text(backend, token)]
        backend.add_special_tokens(special)  # already in the vocabulary: only marked
        self.eos_text = "" if end in special else backend.decode([self.eos_id])
        backend.post_processor = processors.TemplateProcessing(
            single=f"{start} $A {end}",
            pair=f"{start} $A {end} $B {end}",
            special_tokens=[(start, self.bos_id), (end, self.eos_id)],
        )
        self._backend = backend
        self._fingerprint: str | None = None
        self._check_round_trip(source)

    @classmethod
    def from_folder(cls, folder: str | Path) -> Tokenizer:
        """Reads `tokenizer.json`, or `encoder.json` + `vocab.bpe`, or `vocab.json` + `merges.txt`.

        The first of these in the folder is read. With the last pair, `added_tokens.json` is read
        too.

        Raises:
            FileNotFoundError: there is no such folder, or none of these files in it.
            ValueError: a file is damaged or does not describe a byte-level BPE.
        """
        path = find_tokenizer_file(Path(folder))
        if path.name == TOKENIZER_FILE:
            return cls.from_file(path)
        tokenizer = cls(read_vocabulary(path), source=str(path))
        tokenizer.add_special_tokens(
            read_added_tokens(path, tokenizer.special_tokens, tokenizer.vocabulary_size)
        )
        return tokenizer

    @classmethod
    def from_file(cls, path: str | Path) -> Tokenizer:
        """Reads a `tokenizer.json` written by `save` or by Hugging Face.

        Raises:
            FileNotFoundError: there is no such file.
            ValueError: the file is damaged or does not describe a byte-level BPE.
        """
        return cls(read_backend(Path(path)), source=str(path))

    @classmethod
    def from_json(cls, text: str) -> Tokenizer:
        """Parses the text returned by `to_json`.

        Raises:
            ValueError: the text does not describe a byte-level BPE.
        """
        return cls(parse_backend(text, "the JSON text"), source="the JSON text")

    @classmethod
    def train(
        cls,
        captions: Iterable[str],
        vocabulary_size: int = 8192,
        min_frequency: int = 2,
        special_tokens: Sequence[str] = (),
    ) -> Tokenizer:
        """Learns a vocabulary from captions; equal captions give equal vocabularies.

        The vocabulary contains all 256 bytes, so it can spell any text. The start, end and padding
        token is `<|endoftext|>`, the last of the base vocabulary as in GPT-2.

        Args:
            captions: texts, in any order.
            vocabulary_size: maximum number of tokens, special tokens included. The vocabulary is
                smaller if the captions have too few frequent pairs.
            min_frequency: minimum number of occurrences of a pair to be merged.
            special_tokens: names of tokens to append, as in `add_special_tokens`.

        Raises:
            ValueError: `vocabulary_size` has no room for the 256 bytes and the special tokens, or
                there are no captions.
            TypeError: a caption is not a str.
        """
        minimum = len(ALPHABET) + 1 + len(special_tokens)
        if vocabulary_size < minimum:
            raise ValueError(
                f"vocabulary_size must be at least {minimum}: 256 bytes, {END_OF_TEXT} and "
                f"{len(special_tokens)} special tokens. Received: "
                f"vocabulary_size={vocabulary_size}"
            )
        if min_frequency < 1:
            raise ValueError(f"min_frequency must be at least 1. Received: {min_frequency}")
        if isinstance(captions, str):
            raise TypeError(f"captions must be several texts, not one. Received: {captions[:50]!r}")
        captions = [check_text(text, f"caption {i}") for i, text in enumerate(captions)]
        if not any(captions):
            raise ValueError(f"No captions to train on. Received: {len(captions)} empty ones.")
        base_size = vocabulary_size - len(special_tokens)
        tokenizer = cls(train_backend(captions, base_size, min_frequency))
        tokenizer.add_special_tokens(special_tokens)
        return tokenizer

    def encode(self, text: str) -> list[int]:
        """Returns the token ids of a text, without start and end tokens.

        Raises:
            TypeError: `text` is not a str.
            ValueError: `text` holds a lone surrogate, which UTF-8 cannot encode.
        """
        return self._backend.encode(check_text(text, "text"), add_special_tokens=False).ids

    def encode_batch(self, texts: Iterable[str]) -> list[list[int]]:
        """Returns the token ids of several texts as `encode` does, computed on all cores."""
        if isinstance(texts, str):
            raise TypeError(f"encode_batch takes several texts; use encode. Received: {texts!r}")
        texts = [check_text(text, f"text {i}") for i, text in enumerate(texts)]
        encodings = self._backend.encode_batch_fast(texts, add_special_tokens=False)
        return [encoding.ids for encoding in encodings]

    def encode_captions(self, captions: Iterable[str]) -> list[list[int]]:
        """Returns the token ids of captions as `encode_batch` does, without end tokens at the end.

        Only an end token that is ordinary text can be there; see `eos_text`.
        """
        batch = self.encode_batch(captions)
        for ids in batch:
            while ids and ids[-1] == self.eos_id:
                ids.pop()
        return batch

    def encode_prefix(self, text: str) -> list[int]:
        """Returns the token ids that captions starting with the words of `text` begin with.

        Spaces around the text do not count: in a byte-level vocabulary, the space after it belongs
        to the next word, so `encode_prefix("a photo of ")` begins `encode("a photo of a dog")`.

        Raises:
            TypeError: `text` is not a str.
            ValueError: `text` contains the end token, or what the vocabulary has no tokens for.
        """
        text = check_text(text, "prefix").strip()
        encoding = self._backend.encode(text, add_special_tokens=False)
        for token, (start, end) in zip(encoding.ids, encoding.offsets, strict=True):
            if token == self.eos_id:
                raise ValueError(
                    f"Expected a prefix without {self.eos_text!r}, which ends the captions of this "
                    f"tokenizer. Received: {text!r}"
                )
            if token == self.unknown_id:
                raise ValueError(
                    f"Expected a prefix that the vocabulary has tokens for. Received: {text!r}, "
                    f"with the unknown {text[start:end]!r}"
                )
        return encoding.ids

    def decode(self, ids: Iterable[int], skip_special_tokens: bool = True) -> str:
        """Returns the text of token ids.

        Bytes that do not form whole characters (a model can generate such) become U+FFFD.

        Args:
            ids: list, tuple or one-dimensional array of integers.
            skip_special_tokens: whether to leave special tokens out of the text.

        Raises:
            TypeError: an id is not an integer.
            ValueError: an id is not in the vocabulary.
        """
        try:
            ids = [operator.index(i) for i in ids]
        except TypeError:
            raise TypeError(f"ids must be integers in one dimension. Received: {ids!r}") from None
        size = self.vocabulary_size
        for i in ids:
            if not 0 <= i < size:
                raise ValueError(f"Token ids must be in 0..{size - 1}. Received: {i}")
        return self._backend.decode(ids, skip_special_tokens=skip_special_tokens)

    def decode_caption(self, ids: Iterable[int]) -> str:
        """Returns the text of a generated caption, without an incomplete character at its end.

        A character of a non-Latin script may take several tokens, between which a caption may be
        cut.
        """
        return self.decode(ids).rstrip("\ufffd")

    @property
    def removed_pattern(self) -> str:
        """Regular expression of what `decode_caption` removes from decoded text; "" for nothing."""
        return ""

    def caption_pieces(self, ids: Sequence[int], start: int = 0) -> list[str]:
        """Returns what each token adds to the text of a caption; together they are the text.

        Where a token is part of a character, the token that completes the character has it.

        Args:
            ids: tokens of a caption.
            start: index of the first token whose text is returned.
        """
        texts = [self.decode_caption(ids[:end]) for end in range(start, len(ids) + 1)]
        return [after[len(commonprefix([before, after])) :] for before, after in pairwise(texts)]

    def token_bytes(self) -> list[bytes]:
        """Returns the UTF-8 bytes that each token adds to text, b"" for special tokens.

        They need not be whole characters.
        """
        table, special = alphabet_bytes(), set(self.special_tokens.values())
        tokens = (self._backend.id_to_token(i) or "" for i in range(self.vocabulary_size))
        return [
            b"" if i in special else b"".join(_as_bytes(character, table) for character in token)
            for i, token in enumerate(tokens)
        ]

    def decode_batch(
        self, batch: Iterable[Iterable[int]], skip_special_tokens: bool = True
    ) -> list[str]:
        """Returns the texts of several captions as `decode` does; they may differ in length."""
        return [self.decode(ids, skip_special_tokens) for ids in batch]

    @property
    def special_tokens(self) -> dict[str, int]:
        """All special tokens and their ids; appended ones start at `base_vocabulary_size`."""
        added = self._backend.get_added_tokens_decoder()
        return {token.content: i for i, token in sorted(added.items()) if token.special}

    def add_special_tokens(self, tokens: Sequence[str]) -> list[int]:
        """Appends special tokens to the vocabulary; an existing special token keeps its id.

        Text is never encoded to these ids: insert them into sequences by id.

        Args:
            tokens: names of visible ASCII characters, such as `["<|photo|>"]`.

        Returns:
            One id per token, in the order given.

        Raises:
            ValueError: a name has other characters, or is an ordinary token of the vocabulary.
        """
        if isinstance(tokens, str):
            raise TypeError(f"add_special_tokens takes a list of names. Received: {tokens!r}")
        known = self.special_tokens
        for token in tokens:
            if not (isinstance(token, str) and token and all("!" <= c <= "~" for c in token)):
                raise ValueError(
                    f"A special token must be visible ASCII characters. Received: {token!r}"
                )
            if token not in known and self._backend.token_to_id(token) is not None:
                raise ValueError(
                    f"{token!r} is an ordinary token of this vocabulary and would vanish from "
                    "decoded text as a special token. Choose a name like '<|photo|>'."
                )
        self._backend.add_special_tokens(list(tokens))
        self._fingerprint = None
        return [token_id(self._backend, token) for token in tokens]

    @property
    def base_vocabulary_size(self) -> int:
        """Number of tokens without the appended special tokens (50257 for GPT-2)."""
        return self._backend.get_vocab_size(with_added_tokens=False)

    @property
    def vocabulary_size(self) -> int:
        """Number of tokens, appended special tokens included."""
        return self._backend.get_vocab_size(with_added_tokens=True)

    def to_json(self) -> str:
        """Returns the tokenizer as JSON in the format of the `tokenizers` library.

        The library adds the same start and end tokens (`post_processor`) and the same padding
        (`padding`) when it loads this text.
        """
        content = json.loads(self._backend.to_str())
        content["padding"] = {
            "strategy": "BatchLongest",
            "direction": "Right",
            "pad_to_multiple_of": None,
            "pad_id": self.pad_id,
            "pad_type_id": 0,
            "pad_token": self._backend.id_to_token(self.pad_id),
        }
        return json.dumps(content, ensure_ascii=False)

    def save(self, path: str | Path) -> None:
        """Writes `to_json()` to a file, usually named `tokenizer.json`; `from_file` reads it."""
        Path(path).write_text(self.to_json() + "\n", encoding="utf-8", newline="\n")

    @property
    def fingerprint(self) -> str:
        """12 hexadecimal digits, equal for tokenizers that produce equal ids."""
        if self._fingerprint is None:
            content = json.loads(self._backend.to_str())
            identity = [
                sorted(content["model"]["vocab"].items(), key=operator.itemgetter(1)),
                *self._splitting(content),
                list(self.special_tokens.items()),
                [self.bos_id, self.eos_id, self.pad_id],
            ]
            text = json.dumps(identity, sort_keys=True)
            self._fingerprint = hashlib.sha256(text.encode()).hexdigest()[:12]
        return self._fingerprint

    def _splitting(self, content: dict[str, Any]) -> list[Any]:
        """Returns how a tokenizer, given as JSON, splits text into tokens of its vocabulary."""
        content["pre_tokenizer"].pop("trim_offsets", None)  # does not change ids
        return [merge_pairs(content["model"]["merges"]), content["pre_tokenizer"]]

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Tokenizer):
            return NotImplemented
        return self.fingerprint == other.fingerprint

    __hash__ = None  # type: ignore[assignment]  # mutable: add_special_tokens changes it

    def __reduce__(self) -> tuple[Any, ...]:
        return Tokenizer.from_json, (self.to_json(),)

    def __repr__(self) -> str:
        return (
            f"Tokenizer(vocabulary_size={self.vocabulary_size}, "
            f"base_vocabulary_size={self.base_vocabulary_size}, bos_id={self.bos_id}, "
            f"eos_id={self.eos_id}, pad_id={self.pad_id}, fingerprint={self.fingerprint!r})"
        )

    def _check_round_trip(self, source: str) -> None:
        """Checks that a probe text is decoded unchanged."""
        probe = "".join(map(chr, range(256))) + " a  dog's 2 dögs\n\n 🐕🏽 " + END_OF_TEXT
        received = self.decode(self.encode(probe))
        if received != probe:
            start = next(
                (i for i, (a, b) in enumerate(zip(probe, received, strict=False)) if a != b),
                min(len(probe), len(received)),
            )
            raise ValueError(
                "Expected a byte-level BPE that returns text unchanged, without a space before it, "
                f"in {source}. Received: one that turns {probe[start : start + 20]!r} into "
                f"{received[start : start + 20]!r}"
            )


def _as_bytes(character: str, table: Mapping[str, int]) -> bytes:
    return bytes([table[character]]) if character in table else character.encode()
