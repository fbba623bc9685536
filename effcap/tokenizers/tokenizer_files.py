"""Reads tokenizer files: `tokenizer.json`, or a vocabulary with its merges."""

from __future__ import annotations

import json
import operator
from collections.abc import Mapping
from pathlib import Path

import tokenizers
from tokenizers import models, processors

from effcap.tokenizers.byte_level import make_backend, template_tokens

TOKENIZER_FILE = "tokenizer.json"
# Vocabulary and merges: OpenAI's file names, then Hugging Face's for the same two files.
MERGES_FILES = {"encoder.json": "vocab.bpe", "vocab.json": "merges.txt"}
ADDED_TOKENS_FILE = "added_tokens.json"
# Files of Hugging Face that name the start and end tokens.
SPECIAL_TOKENS_FILES = ("tokenizer_config.json", "special_tokens_map.json")
MAX_NAMES = 10  # file names listed in an error


def find_tokenizer_file(folder: Path) -> Path:
    """Returns the `tokenizer.json` of a folder or, without one, its vocabulary file.

    Raises:
        FileNotFoundError: there is no such folder, or no tokenizer in it.
    """
    if folder.is_file():
        raise FileNotFoundError(f"{folder} is a file, not a folder: use Tokenizer.from_file.")
    if not folder.is_dir():
        raise FileNotFoundError(f"There is no folder {folder}.")
    if (folder / TOKENIZER_FILE).is_file():
        return folder / TOKENIZER_FILE
    for vocabulary, merges in MERGES_FILES.items():
        if (folder / vocabulary).is_file() and (folder / merges).is_file():
            return folder / vocabulary
    pairs = [f"{vocabulary} + {merges}" for vocabulary, merges in MERGES_FILES.items()]
    names = sorted(entry.name for entry in folder.iterdir())
    listed = ", ".join(names[:MAX_NAMES]) or "nothing"
    if len(names) > MAX_NAMES:
        listed += f" and {len(names) - MAX_NAMES} more"
    raise FileNotFoundError(
        f"No tokenizer in {folder}: it needs {', or '.join([TOKENIZER_FILE, *pairs])}. "
        f"It contains {listed}."
    )


def parse_backend(text: str, source: str) -> tokenizers.Tokenizer:
    """Parses the JSON text of a tokenizer; `source` names it in errors.

    Raises:
        ValueError: the text is damaged or describes no tokenizer.
    """
    try:
        return tokenizers.Tokenizer.from_str(text)
    except Exception as error:  # the library raises bare Exception for every kind of damage
        raise ValueError(f"Expected a tokenizer in {source}. Received: {error}") from error


def read_backend(path: Path) -> tokenizers.Tokenizer:
    """Reads a `tokenizer.json`, with the start and end tokens of the settings beside it.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: a file is damaged or describes no tokenizer.
    """
    if path.is_dir():
        raise FileNotFoundError(f"{path} is a folder, not a file: use Tokenizer.from_folder.")
    if not path.is_file():
        raise FileNotFoundError(f"There is no tokenizer file {path}.")
    return with_special_tokens(parse_backend(_read_text(path), str(path)), path)


def with_special_tokens(backend: tokenizers.Tokenizer, path: Path) -> tokenizers.Tokenizer:
    """Gives a tokenizer without start and end tokens those that Hugging Face's settings name.

    Args:
        backend: tokenizer, which is modified.
        path: its file. The settings are beside it.

    Raises:
        ValueError: a file of settings is damaged.
    """
    if template_tokens(backend):
        return backend
    for name in SPECIAL_TOKENS_FILES:
        settings = path.with_name(name)
        if not settings.is_file():
            continue
        try:
            content = json.loads(_read_text(settings))
            tokens = [content.get(key) for key in ("bos_token", "eos_token")]
        except (json.JSONDecodeError, AttributeError) as error:
            raise ValueError(
                f"Expected settings as JSON in {settings}. Received: {error}"
            ) from None
        names = [token["content"] if isinstance(token, dict) else token for token in tokens]
        start, end = names[0] or names[1], names[1]
        ids = [backend.token_to_id(token) for token in (start, end) if isinstance(token, str)]
        if len(ids) == 2 and None not in ids:
            backend.post_processor = processors.TemplateProcessing(
                single=f"{start} $A {end}", special_tokens=[(start, ids[0]), (end, ids[1])]
            )
            return backend
    return backend


def read_vocabulary(vocabulary: Path) -> tokenizers.Tokenizer:
    """Reads a vocabulary file and the merges file beside it.

    Raises:
        ValueError: a file is damaged.
    """
    merges = vocabulary.with_name(MERGES_FILES[vocabulary.name])
    try:
        backend = make_backend(models.BPE.from_file(str(vocabulary), str(merges)))
    except Exception as error:  # the library raises bare Exception for every kind of damage
        raise ValueError(
            f"Expected a byte-level BPE in {vocabulary} and {merges}. Received: {error}"
        ) from error
    return with_special_tokens(backend, vocabulary)


def read_added_tokens(
    vocabulary: Path, special_tokens: Mapping[str, int], vocabulary_size: int
) -> list[str]:
    """Reads the names in Hugging Face's `added_tokens.json` beside a vocabulary, by their ids.

    Args:
        vocabulary: path of the vocabulary file.
        special_tokens: special tokens and ids that the tokenizer already has, which are left out.
        vocabulary_size: number of tokens so far, the id expected of the first added one.

    Raises:
        ValueError: the file is damaged, or its ids do not follow the vocabulary.
    """
    path = vocabulary.with_name(ADDED_TOKENS_FILE)
    if vocabulary.name != "vocab.json" or not path.is_file():
        return []
    try:
        items = sorted(json.loads(_read_text(path)).items(), key=operator.itemgetter(1))
        added = {token: i for token, i in items if special_tokens.get(token) != i}
    except (json.JSONDecodeError, AttributeError, TypeError) as error:
        raise ValueError(f"Expected {{token: id}} in {path}. Received: {error}") from error
    if list(added.values()) != list(range(vocabulary_size, vocabulary_size + len(added))):
        raise ValueError(
            f"Expected the ids in {path} to follow the vocabulary from {vocabulary_size} on. "
            f"Received: {added}"
        )
    return list(added)


def _read_text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except UnicodeDecodeError as error:
        raise ValueError(f"Expected UTF-8 text in {path}. Received: {error}") from None
