"""Gives GPT-2's tokenizer the start token that a published captioner was trained with."""

from __future__ import annotations

import json

from effcap.tokenizers import Tokenizer
from effcap.weights.published import CONVERTERS


def published_tokenizer(system: str, tokenizer: Tokenizer) -> tuple[Tokenizer, str | None]:
    """Returns a tokenizer whose captions start as in the original, and a message.

    A tokenizer that has a start token of its own, other than its end token, is returned unchanged
    and without a message.

    Args:
        system: from `effcap.weights.published.open_published`.
        tokenizer: GPT-2's, whose start token is its end token.
    """
    if tokenizer.bos_id != tokenizer.eos_id:
        return tokenizer, None
    token = CONVERTERS[system].start_token
    content = json.loads(tokenizer.to_json())
    index = content["model"]["vocab"].get(token)
    if index is None:
        return tokenizer, f"captions start with the end token: the tokenizer has no token {token!r}"
    template = content["post_processor"]
    template["single"][0]["SpecialToken"]["id"] = token
    template["special_tokens"][token] = {"id": token, "ids": [index], "tokens": [token]}
    started = Tokenizer.from_json(json.dumps(content, ensure_ascii=False))
    return started, f"captions start with {token!r}, as in the original"
