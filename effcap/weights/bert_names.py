"""Pairs of our name and the published name for every weight of BERT as BLIP and X-VLM have it.

The published names are those of transformers' `BlipTextLMHeadModel` and `BertLMHeadModel`; whole
captioners have them in `text_decoder`.
"""

from __future__ import annotations

from effcap.weights.name_pairs import NamePair, embedding, linear, nested, norm

SELF_ATTENTION = [
    *linear("attn.c_attn", *(f"attention.self.{name}" for name in ("query", "key", "value"))),
    *linear("attn.c_proj", "attention.output.dense"),
    *norm("ln_1", "attention.output.LayerNorm"),
]
CROSS_ATTENTION = [
    *linear("fusion.attention.query", "crossattention.self.query"),
    *linear("fusion.attention.key_value", "crossattention.self.key", "crossattention.self.value"),
    *linear("fusion.attention.c_proj", "crossattention.output.dense"),
    *norm("fusion.norm", "crossattention.output.LayerNorm"),
]
FEED_FORWARD = [
    *linear("mlp.c_fc", "intermediate.dense"),
    *linear("mlp.c_proj", "output.dense"),
    *norm("ln_2", "output.LayerNorm"),
]
# Tensors that older files have too, and the tensors that they must equal.
COPIES = {
    "cls.predictions.decoder.weight": "bert.embeddings.word_embeddings.weight",
    "cls.predictions.decoder.bias": "cls.predictions.bias",
}


def bert_name_pairs(
    num_layers: int, first_cross_layer: int = 0, has_token_types: bool = False
) -> list[NamePair]:
    """Returns the pairs of a `BERT`.

    Args:
        num_layers: number of blocks.
        first_cross_layer: index of the first block with cross-attention.
        has_token_types: whether there is an embedding of token types.
    """
    embeddings = "bert.embeddings"
    pairs = [
        *embedding("token_embedding", f"{embeddings}.word_embeddings"),
        *embedding("position_embedding", f"{embeddings}.position_embeddings"),
        *norm("embedding_norm", f"{embeddings}.LayerNorm"),
        *linear("transform", "cls.predictions.transform.dense"),
        *norm("transform_norm", "cls.predictions.transform.LayerNorm"),
        NamePair("head.bias", ("cls.predictions.bias",)),
    ]
    if has_token_types:
        pairs += embedding("type_embedding", f"{embeddings}.token_type_embeddings")
    for i in range(num_layers):
        block = [*SELF_ATTENTION, *FEED_FORWARD]
        if i >= first_cross_layer:
            block += CROSS_ATTENTION
        pairs += nested(f"blocks.{i}", f"bert.encoder.layer.{i}", block)
    return pairs
