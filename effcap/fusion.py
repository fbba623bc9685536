"""How what is seen enters the text: one layer of fusion in every GPT-2 block."""

from __future__ import annotations

import keras

from effcap.attention import CrossAttention


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
        context: what `project(memory (B, S, D))` returned, computed once per image.

    Returns:
        (R, T, D).
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

    def build(self, shape, memory_shape):
        self.norm.build(shape)
        self.attention.build(shape, memory_shape)
        self.built = True

    def project(self, memory) -> dict:
        """The context of memory (B, S, D): keys and values, each (B, S, H, d)."""
        return self.attention.project(memory)

    def call(self, x, context, training=None):
        mixed, _ = self.attention(self.norm(x), context, training=training)  # (R,T,D)
        return x + self.dropout(mixed, training=training)


FUSIONS: dict[str, type[keras.layers.Layer]] = {"cross": CrossFusion}


def make_fusion(kind: str | None, **arguments) -> keras.layers.Layer:
    """The fusion layer called `kind` in hparams; ValueError where there is none of that name."""
    if kind not in FUSIONS:
        raise ValueError(
            f"Expected a fusion kind out of {sorted(FUSIONS)}. Received: fusion.kind={kind!r}"
        )
    return FUSIONS[kind](**arguments)
