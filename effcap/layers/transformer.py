"""The transformer blocks that encoders and decoder are made of."""

from __future__ import annotations

import math

import keras

from effcap.layers.attention import INITIALIZER_STDDEV, SelfAttention, dense


def gelu_tanh(x):
    """GPT-2's form of GELU (Hendrycks and Gimpel, 2016), through a tanh."""
    return keras.activations.gelu(x, approximate=True)


class FeedForward(keras.layers.Layer):
    """An MLP: D -> inner -> D.

    Args:
        width: model width D.
        inner: width of the hidden layer.
        output_stddev: spread of the initial output projection.
        activation: of the hidden layer, GPT-2's GELU by default.
    """

    def __init__(
        self,
        width: int,
        inner: int,
        output_stddev: float = INITIALIZER_STDDEV,
        activation=gelu_tanh,
        **kwargs,
    ):
        super().__init__(**kwargs)
        self.activation = activation
        self.c_fc = dense(inner, "c_fc")
        self.c_proj = dense(width, "c_proj", output_stddev)
        self.inner = inner

    def build(self, shape):
        self.c_fc.build(shape)
        self.c_proj.build((*shape[:-1], self.inner))
        self.built = True

    def call(self, x):
        hidden = self.activation(self.c_fc(x))  # (B,T,inner)
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
        fusion: a layer as in `effcap.decoders.cross`, or None.

    Call arguments:
        x: (R, T, D).
        visible, cache, position: as in `SelfAttention`.
        contexts: what `project` returned; only with `fusion`.

    Returns:
        (output (R, T, D), cache, the fusion's attention weights).
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

    def build(self, shape, memory_shapes=None):
        for part in (self.ln_1, self.attn, self.ln_2, self.mlp):
            part.build(shape)
        if self.fusion is not None:
            self.fusion.build(shape, memory_shapes)
        self.built = True

    def project(self, memory) -> list[dict]:
        """The contexts of an encoder's memory, computed once per image."""
        return self.fusion.project(memory, self.ln_1)

    def call(self, x, visible=None, cache=None, position=None, contexts=None, training=None):
        mixed, cache = self.attn(
            self.ln_1(x), visible, cache=cache, position=position, training=training
        )
        x = x + self.dropout(mixed, training=training)
        looks = ()
        if contexts is not None:
            x, looks = self.fusion(x, contexts, norm=self.ln_1, training=training)
        return x + self.dropout(self.mlp(self.ln_2(x)), training=training), cache, looks


class PostNormBlock(keras.layers.Layer):
    """self-attention -> layer norm -> MLP with ReLU -> layer norm (Vaswani et al., 2017).

    Args:
        width: model width D.
        heads: number of heads.
        inner: width of the MLP's hidden layer.
        dropout: rate on what each part adds to the stream.

    Call arguments:
        x: (B, S, D).
        visible: as in `SelfAttention`.

    Returns:
        (B, S, D).
    """

    def __init__(self, width: int, heads: int, inner: int, dropout: float = 0.0, **kwargs):
        super().__init__(**kwargs)
        self.attn = SelfAttention(width, heads, name="attn")
        self.ln_1 = keras.layers.LayerNormalization(epsilon=1e-5, name="ln_1")
        self.mlp = FeedForward(width, inner, activation=keras.activations.relu, name="mlp")
        self.ln_2 = keras.layers.LayerNormalization(epsilon=1e-5, name="ln_2")
        self.dropout = keras.layers.Dropout(dropout, name="dropout")

    def build(self, shape):
        for part in (self.attn, self.ln_1, self.mlp, self.ln_2):
            part.build(shape)
        self.built = True

    def call(self, x, visible=None, training=None):
        mixed, _ = self.attn(x, visible, training=training)
        x = self.ln_1(x + self.dropout(mixed, training=training))
        return self.ln_2(x + self.dropout(self.mlp(x), training=training))
