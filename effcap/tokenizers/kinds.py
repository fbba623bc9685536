"""Reads a tokenizer of either kind, byte-level BPE or WordPiece."""

from __future__ import annotations

from pathlib import Path

import tokenizers
from tokenizers import models

from effcap.tokenizers.tokenizer import Tokenizer
from effcap.tokenizers.tokenizer_files import TOKENIZER_FILE, parse_backend, read_backend
from effcap.tokenizers.wordpiece import VOCABULARY_FILE, WordPieceTokenizer


def read_tokenizer(path: str | Path) -> Tokenizer:
    """Reads a `tokenizer.json`.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: the file is damaged or describes another kind of tokenizer.
    """
    return _create(read_backend(Path(path)), str(path))


def read_tokenizer_folder(folder: str | Path) -> Tokenizer:
    """Reads the tokenizer in a folder: `tokenizer.json`, or a vocabulary of either kind.

    Raises:
        FileNotFoundError: there is no such folder, or no tokenizer in it.
        ValueError: a file is damaged or describes another kind of tokenizer.
    """
    if (Path(folder) / TOKENIZER_FILE).is_file():
        return read_tokenizer(Path(folder) / TOKENIZER_FILE)
    if (Path(folder) / VOCABULARY_FILE).is_file():
        return WordPieceTokenizer.from_file(Path(folder) / VOCABULARY_FILE)
    return Tokenizer.from_folder(folder)


def parse_tokenizer(text: str) -> Tokenizer:
    """Parses the text returned by a tokenizer's `to_json`.

    Raises:
        ValueError: the text describes another kind of tokenizer.
    """
    return _create(parse_backend(text, "the JSON text"), "the JSON text")


def _create(backend: tokenizers.Tokenizer, source: str) -> Tokenizer:
    is_wordpiece = isinstance(backend.model, models.WordPiece)
    return (WordPieceTokenizer if is_wordpiece else Tokenizer)(backend, source)
