"""Reads the tokenizer of a captioner of transformers, with its start and end tokens."""

from __future__ import annotations

import json

from effcap.tokenizers import Tokenizer
from effcap.tokenizers.kinds import parse_tokenizer
from effcap.tokenizers.wordpiece import WordPieceTokenizer
from effcap.weights.captioner_config import VIT_GPT2, CaptionerConfig
from effcap.weights.published_tokenizer import replace_token

START = "[DEC]"  # BLIP's start token, the first after BERT's vocabulary


def captioner_tokenizer(config: CaptionerConfig, tokenizer: Tokenizer) -> Tokenizer:
    """Returns a tokenizer with the start and end tokens that a captioner was trained with.

    Tokens that follow BLIP's start token are removed: its captions consist of BERT's tokens.

    Args:
        config: settings of the captioner.
        tokenizer: of either kind for ViT and GPT-2, BERT's for BLIP.

    Raises:
        ValueError: the tokenizer is of another kind, or has no such tokens.
    """
    is_blip = config.system != VIT_GPT2
    if is_blip and not isinstance(tokenizer, WordPieceTokenizer):
        raise ValueError(
            f"Expected a WordPiece, as BERT's, for the captioner of {config.path}. "
            f"Received: {type(tokenizer).__name__}"
        )
    content = json.loads(tokenizer.to_json())
    names = {index: token for token, index in content["model"]["vocab"].items()}
    start, end = config.start_id, config.end_id
    if is_blip:
        size = len(names)
        start = size if start is None else start
        last = max(start, size - 1)
        content["added_tokens"] = [x for x in content["added_tokens"] if x["id"] <= last]
    names |= {token["id"]: token["content"] for token in content["added_tokens"]}
    if is_blip and start == size:
        names.setdefault(start, START)
    ends = (("start", 0, start, tokenizer.bos_id), ("end", -1, end, tokenizer.eos_id))
    for verb, position, index, own in ends:
        index = own if index is None else index
        if index not in names:
            raise ValueError(
                f"Expected a tokenizer with token {index}, which {verb}s the captions of "
                f"{config.path}. Received: one of {len(names)} tokens"
            )
        replace_token(content, position, names[index], index)
    return parse_tokenizer(json.dumps(content, ensure_ascii=False))
