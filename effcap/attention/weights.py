"""Attention weights on memory for given captions."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import keras
import numpy as np

if TYPE_CHECKING:
    from effcap.decoders.base import Decoder
    from effcap.tokenizers import Tokenizer


def attention_weights(
    encoder: Any,
    decoder: Decoder,
    tokenizer: Tokenizer,
    inputs: dict,
    captions: Sequence[str | Sequence[int]],
) -> tuple[np.ndarray, list[list[np.ndarray]]]:
    """Computes attention weights; see `Captioner.attention_weights`."""
    rows = len(next(iter(inputs.values())))
    if len(captions) != rows:
        raise ValueError(f"Expected a caption for each of {rows} rows. Received: {len(captions)}")
    ids = [
        tokenizer.encode_captions([caption])[0] if isinstance(caption, str) else list(caption)
        for caption in captions
    ]
    targets = np.full((rows, 1 + max(map(len, ids))), tokenizer.eos_id, np.int32)  # (B,T)
    for row, row_ids in enumerate(ids):
        targets[row, : len(row_ids)] = row_ids
    start = np.full((rows, 1), tokenizer.bos_id, np.int32)  # (B,1)
    tokens = np.concatenate([start, targets[:, :-1]], axis=1)  # (B,T)
    memory = encoder(inputs, training=False)
    _, weights = decoder.call_with_attention(tokens, memory, training=False)
    return targets, [[keras.ops.convert_to_numpy(w) for w in layer] for layer in weights]
