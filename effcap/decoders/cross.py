"""How what is seen enters the text: one layer of fusion in every GPT-2 block."""

from __future__ import annotations

import keras

from effcap.decoders.gated import BranchFusion, MeshedFusion
from effcap.layers.attention import CrossAttention


class CrossFusion(keras.layers.Layer):
    """Pre-norm residual cross-attention on one memory: h + cross(norm(h), memory).

    The output projection starts at zero, so a new captioner writes exactly what its GPT-2 writes.

    Args:
        width: model width D.
        heads: number of heads.
        dropout: rate on the output.
        attention_dropout: rate on the attention weights.

    Call arguments:
        x: (R, T, D), R = B*K rows with the K rows of an image adjacent.
        contexts: what `project` returned of the encoder's memory, computed once per image.
        norm: the block's first layer norm, for fusions that share it.

    Returns:
        ((R, T, D), attention weights on each memory, (R, H, T, S)).

    Raises:
        ValueError: for an encoder that gives several memories.
    """

    def __init__(
        self,
        width: int,
        heads: int,
        dropout: float = 0.0,
        attention_dropout: float = 0.0,
        **kwargs,
    ):
        super().__init__(**kwargs)
        self.norm = keras.layers.LayerNormalization(epsilon=1e-5, name="norm")
        self.attention = CrossAttention(width, heads, attention_dropout, name="attention")
        self.dropout = keras.layers.Dropout(dropout, name="dropout")

    def build(self, shape, memory_shapes):
        if len(memory_shapes) != 1:
            raise ValueError(
                "Expected an encoder that gives one memory for fusion.kind='cross', such as "
                "encoder.levels=1, or fusion.kind='meshed' for levels and 'branches' for "
                f"modalities. Received: {len(memory_shapes)} memories"
            )
        self.norm.build(shape)
        self.attention.build(shape, memory_shapes[0])
        self.built = True

    def project(self, memory, norm) -> list[dict]:
        """The context of the one memory: keys and values, each (B, S, H, d)."""
        return [self.attention.project(part.values, part.visible) for part in memory]

    def call(self, x, contexts, norm, training=None):
        mixed, weights = self.attention(self.norm(x), contexts[0], training=training)  # (R,T,D)
        return x + self.dropout(mixed, training=training), (weights,)


FUSIONS: dict[str, type[keras.layers.Layer]] = {
    "cross": CrossFusion,
    "meshed": MeshedFusion,
    "branches": BranchFusion,
}


def make_fusion(kind: str | None, **arguments) -> keras.layers.Layer:
    """The fusion layer called `kind` in hparams; ValueError where there is none of that name."""
    if kind not in FUSIONS:
        raise ValueError(
            f"Expected a fusion kind out of {sorted(FUSIONS)}. Received: fusion.kind={kind!r}"
        )
    return FUSIONS[kind](**arguments)
