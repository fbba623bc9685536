"""Pairs of our name and Hugging Face's name for every weight of GPT-2."""

from __future__ import annotations

from effcap.weights.name_pairs import NamePair, conv1d, embedding, nested, norm

BLOCK = [
    *norm("ln_1", "ln_1"),
    *conv1d("attn.c_attn", "attn.c_attn"),
    *conv1d("attn.c_proj", "attn.c_proj"),
    *norm("ln_2", "ln_2"),
    *conv1d("mlp.c_fc", "mlp.c_fc"),
    *conv1d("mlp.c_proj", "mlp.c_proj"),
]
CROSS_ATTENTION = [
    *norm("norm", "ln_cross_attn"),
    *conv1d("attention.query", "crossattention.q_attn"),
    *conv1d("attention.key_value", "crossattention.c_attn"),
    *conv1d("attention.c_proj", "crossattention.c_proj"),
]


def gpt2_name_pairs(num_layers: int) -> list[NamePair]:
    """Returns the pairs of a decoder of `num_layers` blocks, without fusion and special tokens."""
    pairs = [
        *embedding("token_embedding", "wte"),
        *embedding("position_embedding", "wpe"),
        *norm("ln_f", "ln_f"),
    ]
    for i in range(num_layers):
        pairs += nested(f"blocks.{i}", f"h.{i}", BLOCK)
    return pairs


def gpt2_cross_name_pairs(num_layers: int) -> list[NamePair]:
    """Returns the pairs of a decoder's fusion by cross-attention, transformers' own."""
    return [
        pair
        for i in range(num_layers)
        for pair in nested(f"blocks.{i}.fusion", f"h.{i}", CROSS_ATTENTION)
    ]
