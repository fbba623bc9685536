"""Byte-level BPE: text to token ids and back, without losing a byte."""

from __future__ import annotations

import hashlib
import json
import operator
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import tokenizers
from tokenizers import decoders, models, pre_tokenizers, processors, trainers

END_OF_TEXT = "<|endoftext|>"
TOKENIZER_FILE = "tokenizer.json"
# Vocabulary and merges, by the names OpenAI and Hugging Face give to the same two files.
VOCABULARY_AND_MERGES = (("encoder.json", "vocab.bpe"), ("vocab.json", "merges.txt"))
ALPHABET = tuple(sorted(pre_tokenizers.ByteLevel.alphabet()))  # one printable character per byte


class Tokenizer:
    """Byte-level byte-pair encoding as in GPT-2 (Radford et al., 2019).

    Every text that UTF-8 can encode comes back exactly: `decode(encode(text)) == text`. Nothing is
    normalised and no space is put in front, so `"a dog"` and `" a dog"` have different ids.
    Special tokens are never read from text: a caption that holds the characters `<|endoftext|>`
    is encoded as those characters and cannot end itself.

    Make one with `from_folder` (GPT-2's files or a preset), `from_file`, `from_json` or `train`.

    Attributes:
        eos_id: the token that ends a caption (50256 for GPT-2).
        bos_id: the token fed before a caption (the same as `eos_id` for GPT-2).
        pad_id: what fills padding. Any valid id: masks decide what is padding, never this id.
        base_vocabulary_size: tokens of the vocabulary proper, the end token included (50257).
        vocabulary_size: these and the special tokens appended by `add_special_tokens`.
        special_tokens: every special token and its id; ids from `base_vocabulary_size` on are the
            appended ones.
        fingerprint: 12 hexadecimal digits; equal for tokenizers that give equal ids.

    Example:
        >>> tokenizer = Tokenizer.from_folder("gpt2_bpe")
        >>> tokenizer.encode("Hello world")
        [15496, 995]
    """

    def __init__(self, backend: tokenizers.Tokenizer, source: str = "tokenizer") -> None:
        """Wrap a `tokenizers.Tokenizer`; the `from_...` methods and `train` are the usual way in.

        Args:
            backend: a byte-level BPE. It is taken over and changed: pass one that nobody else uses.
            source: what to call it in errors.

        Raises:
            ValueError: it is not a byte-level BPE, it would not give text back unchanged, or it
                names no end token.
        """
        _check_byte_level(backend, source)
        start, end, padding = _special_roles(backend, source)
        self.bos_id, self.eos_id, self.pad_id = map(backend.token_to_id, (start, end, padding))
        backend.no_truncation()  # a file may ask to cut or to fill texts: the caller does that
        backend.no_padding()
        backend.model.dropout = None  # BPE dropout would make ids random
        backend.add_special_tokens([start, end, padding])  # in the vocabulary already: only marked
        backend.encode_special_tokens = True  # special tokens in text are plain text
        backend.post_processor = processors.TemplateProcessing(
            single=f"{start} $A {end}",
            pair=f"{start} $A {end} $B {end}",
            special_tokens=[(start, self.bos_id), (end, self.eos_id)],
        )
        self._backend = backend
        self._fingerprint: str | None = None
        self._check_round_trip(source)

    # Ways to get one

    @classmethod
    def from_folder(cls, folder: str | Path) -> Tokenizer:
        """Read `tokenizer.json`, or `encoder.json` + `vocab.bpe`, or `vocab.json` + `merges.txt`.

        Where several are there, the first of this list is read. Beside the last pair,
        `added_tokens.json` is read too.

        Raises:
            FileNotFoundError: no such folder, or none of these in it.
            ValueError: a file is damaged or does not hold a byte-level BPE.
        """
        folder = Path(folder)
        if not folder.is_dir():
            raise FileNotFoundError(
                f"Expected a folder with a tokenizer. Received: folder={str(folder)!r}, which is "
                + ("a file: use Tokenizer.from_file." if folder.exists() else "not there.")
            )
        if (folder / TOKENIZER_FILE).is_file():
            return cls.from_file(folder / TOKENIZER_FILE)
        for vocabulary, merges in VOCABULARY_AND_MERGES:
            if (folder / vocabulary).is_file() and (folder / merges).is_file():
                return cls._from_vocabulary_and_merges(folder / vocabulary, folder / merges)
        pairs = ", or ".join(
            f"{vocabulary} + {merges}" for vocabulary, merges in VOCABULARY_AND_MERGES
        )
        found = sorted(entry.name for entry in folder.iterdir())
        names = ", ".join(found[:10]) + (f" and {len(found) - 10} more" if len(found) > 10 else "")
        raise FileNotFoundError(
            f"No tokenizer in {str(folder)!r}. Looked for: {TOKENIZER_FILE}, or {pairs}. "
            f"Found: {names or 'an empty folder'}."
        )

    @classmethod
    def from_file(cls, path: str | Path) -> Tokenizer:
        """Read a `tokenizer.json` written by `save` or by Hugging Face.

        Raises:
            FileNotFoundError: no such file.
            ValueError: the file is damaged or does not hold a byte-level BPE.
        """
        path = Path(path)
        if not path.is_file():
            raise FileNotFoundError(
                f"Expected a {TOKENIZER_FILE}. Received: path={str(path)!r}, which is "
                + ("a folder: use Tokenizer.from_folder." if path.exists() else "not there.")
            )
        return cls._from_text(_read_text(path), source=str(path))

    @classmethod
    def from_json(cls, text: str) -> Tokenizer:
        """The reverse of `to_json`. Raises ValueError if the text is not a byte-level BPE."""
        return cls._from_text(text, source="the JSON text")

    @classmethod
    def train(
        cls,
        captions: Iterable[str],
        vocabulary_size: int = 8192,
        min_frequency: int = 2,
        special_tokens: Sequence[str] = (),
    ) -> Tokenizer:
        """Learn a new vocabulary from captions. The same captions give the same vocabulary.

        All 256 bytes are always in it, so that it can spell any text, seen in training or not. The
        start, end and padding token is `<|endoftext|>`, last of the base vocabulary as in GPT-2.

        Args:
            captions: the texts, in any order.
            vocabulary_size: tokens at most, special ones included. Fewer come out where the
                captions hold fewer pairs that are frequent enough.
            min_frequency: how often a pair must occur to be merged.
            special_tokens: appended after the base vocabulary, as by `add_special_tokens`.

        Raises:
            ValueError: `vocabulary_size` has no room for the 256 bytes and the special tokens, or
                there are no captions.
            TypeError: a caption is not a str.
        """
        least = len(ALPHABET) + 1 + len(special_tokens)
        if vocabulary_size < least:
            raise ValueError(
                f"vocabulary_size must be at least {least}: 256 bytes, {END_OF_TEXT} and "
                f"{len(special_tokens)} special tokens. Received: "
                f"vocabulary_size={vocabulary_size}"
            )
        if min_frequency < 1:
            raise ValueError(f"min_frequency must be at least 1. Received: {min_frequency}")
        if isinstance(captions, str):
            raise TypeError(f"captions must be several texts, not one. Received: {captions[:50]!r}")
        captions = [_checked(text, f"caption {i}") for i, text in enumerate(captions)]
        if not any(captions):
            raise ValueError(f"No captions to train on. Received: {len(captions)} empty ones.")
        learner = tokenizers.Tokenizer(models.BPE())
        learner.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
        learner.train_from_iterator(
            captions,
            trainers.BpeTrainer(
                vocab_size=vocabulary_size - 1 - len(special_tokens),
                min_frequency=min_frequency,
                initial_alphabet=list(ALPHABET),
                show_progress=False,
            ),
        )
        learned = json.loads(learner.to_str())["model"]
        vocabulary = {**learned["vocab"], END_OF_TEXT: len(learned["vocab"])}
        tokenizer = cls(_byte_level(models.BPE(vocabulary, _pairs(learned["merges"]))))
        tokenizer.add_special_tokens(special_tokens)
        return tokenizer

    @classmethod
    def _from_text(cls, text: str, source: str) -> Tokenizer:
        try:
            backend = tokenizers.Tokenizer.from_str(text)
        except Exception as error:  # the library raises bare Exception for every kind of damage
            raise ValueError(f"Expected a tokenizer in {source}. Received: {error}") from error
        return cls(backend, source)

    @classmethod
    def _from_vocabulary_and_merges(cls, vocabulary: Path, merges: Path) -> Tokenizer:
        try:
            model = models.BPE.from_file(str(vocabulary), str(merges))
        except Exception as error:  # as above
            raise ValueError(
                f"Expected a byte-level BPE in {vocabulary} and {merges}. Received: {error}"
            ) from error
        tokenizer = cls(_byte_level(model), source=str(vocabulary))
        added_file = vocabulary.with_name("added_tokens.json")
        if vocabulary.name == "vocab.json" and added_file.is_file():
            try:
                added = dict(
                    sorted(json.loads(_read_text(added_file)).items(), key=operator.itemgetter(1))
                )
                added = {
                    token: i
                    for token, i in added.items()
                    if tokenizer.special_tokens.get(token) != i
                }
            except (json.JSONDecodeError, AttributeError, TypeError) as error:
                raise ValueError(
                    f"Expected {{token: id}} in {added_file}. Received: {error}"
                ) from error
            first = tokenizer.vocabulary_size
            if list(added.values()) != list(range(first, first + len(added))):
                raise ValueError(
                    f"Expected the ids in {added_file} to follow the vocabulary from {first} on. "
                    f"Received: {added}"
                )
            tokenizer.add_special_tokens(list(added))
        return tokenizer

    # Text to ids and back

    def encode(self, text: str) -> list[int]:
        """Token ids of a text, without start and end tokens.

        Raises:
            TypeError: `text` is not a str.
            ValueError: `text` holds a lone surrogate, which UTF-8 cannot encode.
        """
        return self._backend.encode(_checked(text, "text"), add_special_tokens=False).ids

    def encode_batch(self, texts: Iterable[str]) -> list[list[int]]:
        """Token ids of many texts, on all cores. Equal to `[encode(text) for text in texts]`."""
        if isinstance(texts, str):
            raise TypeError(f"encode_batch takes several texts; use encode. Received: {texts!r}")
        texts = [_checked(text, f"text {i}") for i, text in enumerate(texts)]
        encodings = self._backend.encode_batch_fast(texts, add_special_tokens=False)
        return [encoding.ids for encoding in encodings]

    def decode(self, ids: Iterable[int], skip_special: bool = True) -> str:
        """The text that ids stand for.

        Args:
            ids: a list, tuple or one-dimensional array of integers.
            skip_special: leave special tokens out; otherwise they are spelled out.

        Bytes that do not form whole characters (a model can write such) become U+FFFD.

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
        return self._backend.decode(ids, skip_special_tokens=skip_special)

    def decode_batch(self, batch: Iterable[Iterable[int]], skip_special: bool = True) -> list[str]:
        """`decode` for many captions, which may differ in length."""
        return [self.decode(ids, skip_special) for ids in batch]

    # Special tokens

    @property
    def special_tokens(self) -> dict[str, int]:
        added = self._backend.get_added_tokens_decoder()
        return {token.content: i for i, token in sorted(added.items()) if token.special}

    def add_special_tokens(self, tokens: Sequence[str]) -> list[int]:
        """Append tokens after the vocabulary; one that is special already keeps its id.

        Text never turns into these ids: they are put into sequences by id.

        Args:
            tokens: names, such as `["<|photo|>"]`: visible ASCII characters.

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
                    f"{token!r} is an ordinary token of this vocabulary: as a special one it would "
                    "vanish from decoded text. Choose a name like '<|photo|>'."
                )
        self._backend.add_special_tokens(list(tokens))
        self._fingerprint = None
        return [self._backend.token_to_id(token) for token in tokens]

    @property
    def base_vocabulary_size(self) -> int:
        return self._backend.get_vocab_size(with_added_tokens=False)

    @property
    def vocabulary_size(self) -> int:
        return self._backend.get_vocab_size(with_added_tokens=True)

    # Keeping one

    def to_json(self) -> str:
        """The whole tokenizer as JSON in the format of the `tokenizers` library.

        Start and end token stand in its `post_processor` and the padding token in its `padding`,
        where that library keeps them too: what it loads from here frames and pads alike.
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
        """Write `to_json()` to a file, by custom `tokenizer.json`; `from_file` reads it."""
        Path(path).write_text(self.to_json() + "\n", encoding="utf-8", newline="\n")

    @property
    def fingerprint(self) -> str:
        if self._fingerprint is None:
            content = json.loads(self._backend.to_str())
            content["pre_tokenizer"].pop("trim_offsets", None)  # no influence on ids
            identity = [
                sorted(content["model"]["vocab"].items(), key=operator.itemgetter(1)),
                _pairs(content["model"]["merges"]),
                content["pre_tokenizer"],
                list(self.special_tokens.items()),
                [self.bos_id, self.eos_id, self.pad_id],
            ]
            text = json.dumps(identity, sort_keys=True)
            self._fingerprint = hashlib.sha256(text.encode()).hexdigest()[:12]
        return self._fingerprint

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Tokenizer):
            return NotImplemented
        return self.fingerprint == other.fingerprint

    __hash__ = None  # add_special_tokens changes it

    def __reduce__(self) -> tuple[Any, ...]:
        return Tokenizer.from_json, (self.to_json(),)

    def __repr__(self) -> str:
        return (
            f"Tokenizer(vocabulary_size={self.vocabulary_size}, "
            f"base_vocabulary_size={self.base_vocabulary_size}, bos_id={self.bos_id}, "
            f"eos_id={self.eos_id}, pad_id={self.pad_id}, fingerprint={self.fingerprint!r})"
        )

    def _check_round_trip(self, source: str) -> None:
        probe = "".join(map(chr, range(256))) + " a  dog's 2 dögs\n\n 🐕🏽 " + END_OF_TEXT
        received = self.decode(self.encode(probe))
        if received != probe:
            at = next(
                (i for i, (a, b) in enumerate(zip(probe, received, strict=False)) if a != b),
                min(len(probe), len(received)),
            )
            raise ValueError(
                f"The tokenizer in {source} does not give text back unchanged: it turns "
                f"{probe[at : at + 20]!r} into {received[at : at + 20]!r}. Expected a byte-level "
                "BPE that puts no space in front of texts and drops none."
            )


def _byte_level(model: models.BPE) -> tokenizers.Tokenizer:
    backend = tokenizers.Tokenizer(model)
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    backend.decoder = decoders.ByteLevel()
    return backend


def _check_byte_level(backend: tokenizers.Tokenizer, source: str) -> None:
    if not isinstance(backend.model, models.BPE):
        raise ValueError(
            f"Expected a byte-level BPE in {source}. Received: {type(backend.model).__name__}"
        )
    if backend.normalizer is not None:
        raise ValueError(
            f"Expected a tokenizer that gives text back unchanged in {source}. Received: one that "
            f"normalises text with {type(backend.normalizer).__name__}"
        )
    vocabulary = backend.get_vocab(with_added_tokens=False)
    missing = [character for character in ALPHABET if character not in vocabulary]
    if missing:
        raise ValueError(
            f"Expected the vocabulary in {source} to hold all 256 bytes. Received: one without "
            f"{len(missing)} of them, such as {missing[0]!r}"
        )
    ids = set(backend.get_vocab(with_added_tokens=True).values())
    if max(ids) + 1 != backend.get_vocab_size() or max(vocabulary.values()) >= len(vocabulary):
        raise ValueError(
            f"Expected ids without gaps in {source}, first the vocabulary, then added tokens. "
            f"Received: {len(ids)} ids with {max(ids)} the highest"
        )


def _special_roles(backend: tokenizers.Tokenizer, source: str) -> tuple[str, str, str]:
    """Names of the start, end and padding tokens: what the file says, else GPT-2's convention."""
    processor = backend.post_processor
    template = json.loads(processor.__getstate__()) if processor is not None else {}
    single = template.get("single", []) if template.get("type") == "TemplateProcessing" else []
    framing = [piece["SpecialToken"]["id"] for piece in single if "SpecialToken" in piece]
    start, end = (framing[0], framing[-1]) if framing else (END_OF_TEXT, END_OF_TEXT)
    padding = (backend.padding or {}).get("pad_token", end)
    for token in (start, end, padding):
        if backend.token_to_id(token) is None:
            raise ValueError(
                f"Expected {token!r} in the vocabulary of {source}, to start, end or pad captions. "
                f"Received: one of {backend.get_vocab_size()} tokens without it"
            )
    return start, end, padding


def _pairs(merges: list[Any]) -> list[tuple[str, str]]:
    """Merges as pairs; files of older versions of the library hold them as "left right"."""
    return [tuple(m.split(" ") if isinstance(m, str) else m) for m in merges]


def _read_text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except UnicodeDecodeError as error:
        raise ValueError(f"Expected UTF-8 text in {path}. Received: {error}") from None


def _checked(text: str, name: str) -> str:
    """The text, if it is a str that UTF-8 can encode."""
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
