"""Reads a tokenizer of either kind, byte-level BPE or WordPiece."""

from __future__ import annotations

from pathlib import Path

import tokenizers
from tokenizers import models

from effcap.tokenizers.tokenizer import Tokenizer
from effcap.tokenizers.tokenizer_files import parse_backend, read_backend
from effcap.tokenizers.wordpiece import WordPieceTokenizer


def read_tokenizer(path: str | Path) -> Tokenizer:
    """Reads a `tokenizer.json`.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: the file is damaged or describes another kind of tokenizer.
    """
    return _create(read_backend(Path(path)), str(path))


def parse_tokenizer(text: str) -> Tokenizer:
    """Parses the text returned by a tokenizer's `to_json`.

    Raises:
        ValueError: the text describes another kind of tokenizer.
    """
    return _create(parse_backend(text, "the JSON text"), "the JSON text")


def _create(backend: tokenizers.Tokenizer, source: str) -> Tokenizer:
    is_wordpiece = isinstance(backend.model, models.WordPiece)
    return (WordPieceTokenizer if is_wordpiece else Tokenizer)(backend, source)
