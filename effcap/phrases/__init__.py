"""Phrases that captions contain or do not contain, as tables over a tokenizer's tokens."""

from __future__ import annotations

from effcap.phrases.search import contains, missing_groups
from effcap.phrases.token_tables import phrase_tables, phrase_tokens

__all__ = ["contains", "missing_groups", "phrase_tables", "phrase_tokens"]
