"""Gives GPT-2's tokenizer the start and end tokens that a published captioner was trained with."""

from __future__ import annotations

import json
from typing import Any

from effcap.tokenizers import Tokenizer
from effcap.weights.published import CONVERTERS


def published_tokenizer(system: str, tokenizer: Tokenizer) -> tuple[Tokenizer, str | None]:
    """Returns a tokenizer whose captions start and end as in the original, and a message.

    A tokenizer that has a start token of its own, other than its end token, is returned unchanged
    and without a message.

    Args:
        system: from `effcap.weights.published.open_published`.
        tokenizer: GPT-2's, whose start token is its end token.
    """
    if tokenizer.bos_id != tokenizer.eos_id:
        return tokenizer, None
    converter = CONVERTERS[system]
    content, messages = json.loads(tokenizer.to_json()), []
    for verb, position, token in (
        ("start", 0, converter.start_token),
        ("end", -1, converter.end_token),
    ):
        if token is None:
            continue
        index = content["model"]["vocab"].get(token)
        if index is not None:
            replace_token(content, position, token, index)
            messages.append(f"captions {verb} with {token!r}, as in the original")
        else:
            messages.append(
                f"captions {verb} with the end token: the tokenizer has no token {token!r}"
            )
    replaced = Tokenizer.from_json(json.dumps(content, ensure_ascii=False))
    changed = (replaced.bos_id, replaced.eos_id) != (tokenizer.bos_id, tokenizer.eos_id)
    return replaced if changed else tokenizer, "; ".join(messages) or None


def replace_token(content: dict[str, Any], position: int, token: str, index: int) -> None:
    """Replaces the first or the last token of a tokenizer's template.

    Args:
        content: the tokenizer as JSON.
        position: 0 for the start token, -1 for the end token.
        token: the new token.
        index: its id.
    """
    template = content["post_processor"]
    template["single"][position]["SpecialToken"]["id"] = token
    template["special_tokens"][token] = {"id": token, "ids": [index], "tokens": [token]}
