"""The pre-norm transformer block that encoder and decoder are made of."""

from __future__ import annotations

import math

import keras

from effcap.attention import INITIALIZER_STDDEV, SelfAttention, dense


class FeedForward(keras.layers.Layer):
    """GPT-2's MLP: D -> inner -> D with the tanh form of GELU.

    Args:
        width: model width D.
        inner: width of the hidden layer.
        output_stddev: spread of the initial output projection.
    """

    def __init__(self, width: int, inner: int, output_stddev: float = INITIALIZER_STDDEV, **kwargs):
        super().__init__(**kwargs)
        self.c_fc = dense(inner, "c_fc")
        self.c_proj = dense(width, "c_proj", output_stddev)
        self.inner = inner

    def build(self, shape):
        self.c_fc.build(shape)
        self.c_proj.build((*shape[:-1], self.inner))
        self.built = True

    def call(self, x):
        hidden = keras.activations.gelu(self.c_fc(x), approximate=True)  # (B,T,inner)
        return self.c_proj(hidden)  # (B,T,D)


class TransformerBlock(keras.layers.Layer):
    """self-attention -> fusion (in a decoder) -> MLP, each pre-norm with a residual connection.

    Args:
        width: model width D.
        heads: number of heads.
        inner: width of the MLP's hidden layer; 4*D by default.
        dropout: rate on what each part adds to the stream.
        attention_dropout: rate on the attention weights.
        depth: number of blocks in the stack, by which GPT-2 scales its initial output projections.
        fusion: a layer as in `effcap.fusion`, or None.

    Call arguments:
        x: (R, T, D).
        visible, cache, position: as in `SelfAttention`.
        context: what `fusion.project` returned; only with `fusion`.

    Returns:
        (output (R, T, D), cache).
    """

    def __init__(
        self,
        width: int,
        heads: int,
        inner: int | None = None,
        dropout: float = 0.0,
        attention_dropout: float = 0.0,
        depth: int = 1,
        fusion: keras.layers.Layer | None = None,
        **kwargs,
    ):
        super().__init__(**kwargs)
        output_stddev = INITIALIZER_STDDEV / math.sqrt(2 * depth)
        self.ln_1 = keras.layers.LayerNormalization(epsilon=1e-5, name="ln_1")
        self.attn = SelfAttention(width, heads, attention_dropout, output_stddev, name="attn")
        self.fusion = fusion
        self.ln_2 = keras.layers.LayerNormalization(epsilon=1e-5, name="ln_2")
        self.mlp = FeedForward(width, inner or 4 * width, output_stddev, name="mlp")
        self.dropout = keras.layers.Dropout(dropout, name="dropout")

    def build(self, shape, memory_shape=None):
        for part in (self.ln_1, self.attn, self.ln_2, self.mlp):
            part.build(shape)
        if self.fusion is not None:
            self.fusion.build(shape, memory_shape)
        self.built = True

    def call(self, x, visible=None, cache=None, position=None, context=None, training=None):
        mixed, cache = self.attn(
            self.ln_1(x), visible, cache=cache, position=position, training=training
        )
        x = x + self.dropout(mixed, training=training)
        if context is not None:
            x = self.fusion(x, context, training=training)
        return x + self.dropout(self.mlp(self.ln_2(x)), training=training), cache
