"""Multi-head attention: self-attention with a cache, and cross-attention on projected memory."""

from __future__ import annotations

import math

import keras
from keras import ops

INITIALIZER_STDDEV = 0.02  # GPT-2's


def attend(queries, keys, values, visible=None, dropout=None, training=None):
    """Scaled dot-product attention (Vaswani et al., 2017), with the softmax in float32.

    Args:
        queries: (B, Q, H, d).
        keys: (B, S, H, d).
        values: (B, S, H, d).
        visible: bool, broadcastable to (B, 1, Q, S), true where a query may look; None: everywhere.
        dropout: a layer applied to the attention weights, or None.
        training: whether dropout is active.

    Returns:
        (mixed (B, Q, H*d), weights (B, H, Q, S)); the weights are taken before dropout.
    """
    _, length, heads, head_width = queries.shape
    length = ops.shape(queries)[1] if length is None else length
    queries = queries * (1.0 / math.sqrt(head_width))
    scores = ops.einsum("bqhd,bshd->bhqs", queries, keys)  # (B,H,Q,S)
    scores = ops.cast(scores, "float32")
    if visible is not None:
        scores = ops.where(visible, scores, -1e30)
    # Keras warns of a softmax over one position, and of variables that have no gradient.
    shares = 0 * scores + 1 if scores.shape[-1] == 1 else ops.softmax(scores, axis=-1)
    weights = ops.cast(shares, values.dtype)  # (B,H,Q,S)
    dropped = weights if dropout is None else dropout(weights, training=training)
    mixed = ops.einsum("bhqs,bshd->bqhd", dropped, values)  # (B,Q,H,d)
    return ops.reshape(mixed, (-1, length, heads * head_width)), weights  # (B,Q,H*d)


def split_heads(x, parts: int, heads: int) -> list:
    """Splits (B, T, parts*H*d) into `parts` tensors of shape (B, T, H, d)."""
    length = x.shape[1] or ops.shape(x)[1]
    pieces = ops.split(x, parts, axis=-1)  # parts x (B,T,H*d)
    width = pieces[0].shape[-1] // heads
    return [ops.reshape(piece, (-1, length, heads, width)) for piece in pieces]  # (B,T,H,d)


def dense(units: int, name: str, stddev: float = INITIALIZER_STDDEV) -> keras.layers.Dense:
    """A dense layer started as GPT-2's are; `stddev=0` starts it at zero."""
    start = keras.initializers.RandomNormal(stddev=stddev) if stddev else "zeros"
    return keras.layers.Dense(units, kernel_initializer=start, name=name)


def check_heads(width: int, heads: int) -> None:
    """Raises a ValueError unless `width` splits evenly into `heads`."""
    if width < 1 or heads < 1 or width % heads:
        raise ValueError(
            f"Expected a width that is a positive multiple of the number of heads. "
            f"Received: width={width}, heads={heads}"
        )


class SelfAttention(keras.layers.Layer):
    """Self-attention with GPT-2's fused query-key-value projection.

    Args:
        width: model width D.
        heads: number of heads H; D must be a multiple of it.
        dropout: rate on the attention weights.
        output_stddev: spread of the initial output projection.

    Call arguments:
        x: (B, T, D).
        visible: bool (B or 1, T, S), true where row t may look at position s; None for everywhere.
        cache: None, or `{"keys", "values"}`, each (B, S, H, d): the buffers of earlier positions.
            The keys and values of x are written at `position`, and x looks at the whole buffer.
        position: int scalar, where in the buffers x starts; only with `cache`.

    Returns:
        (output (B, T, D), cache): the cache with x written, or None.
    """

    def __init__(
        self,
        width: int,
        heads: int,
        dropout: float = 0.0,
        output_stddev: float = INITIALIZER_STDDEV,
        **kwargs,
    ):
        super().__init__(**kwargs)
        check_heads(width, heads)
        self.width, self.heads = width, heads
        self.c_attn = dense(3 * width, "c_attn")
        self.c_proj = dense(width, "c_proj", output_stddev)
        self.attention_dropout = keras.layers.Dropout(dropout, name="attention_dropout")

    def build(self, shape):
        self.c_attn.build(shape)
        self.c_proj.build(shape)
        self.built = True

    def call(self, x, visible=None, cache=None, position=None, training=None):
        queries, keys, values = split_heads(self.c_attn(x), 3, self.heads)  # 3 x (B,T,H,d)
        if cache is not None:
            keys = ops.slice_update(cache["keys"], (0, position, 0, 0), keys)  # (B,S,H,d)
            values = ops.slice_update(cache["values"], (0, position, 0, 0), values)  # (B,S,H,d)
            cache = {"keys": keys, "values": values}
        if visible is not None:
            visible = ops.expand_dims(visible, 1)  # (B,1,T,S)
        mixed, _ = attend(queries, keys, values, visible, self.attention_dropout, training)
        return self.c_proj(mixed), cache


class CrossAttention(keras.layers.Layer):
    """Attention of text on memory.

    Keys and values are computed once per image by `project` and shared by all rows of the image.

    Args:
        width: model width D of the text.
        heads: number of heads H.
        dropout: rate on the attention weights.
        output_stddev: spread of the initial output projection, which starts at zero by default.

    Call arguments:
        x: (R, T, D) with R = B*K rows, the K rows of an image adjacent.
        context: what `project` returned, with B rows.

    Returns:
        (output (R, T, D), weights (R, H, T, S)); both zero where nothing of the memory is visible.
    """

    def __init__(
        self,
        width: int,
        heads: int,
        dropout: float = 0.0,
        output_stddev: float = 0.0,
        **kwargs,
    ):
        super().__init__(**kwargs)
        check_heads(width, heads)
        self.width, self.heads = width, heads
        self.query = dense(width, "query")
        self.key_value = dense(2 * width, "key_value")
        self.c_proj = dense(width, "c_proj", output_stddev)
        self.attention_dropout = keras.layers.Dropout(dropout, name="attention_dropout")

    def build(self, shape, memory_shape):
        self.query.build(shape)
        self.key_value.build(memory_shape)
        self.c_proj.build(shape)
        self.built = True

    def project(self, memory, visible=None) -> dict:
        """Keys and values, each (B, S, H, d), of memory (B, S, D), and what of it is visible, bool
        (B, S); None for all."""
        keys, values = split_heads(self.key_value(memory), 2, self.heads)  # 2 x (B,S,H,d)
        context = {"keys": keys, "values": values}
        return context if visible is None else {**context, "visible": visible}

    def call(self, x, context, training=None):
        keys, values = context["keys"], context["values"]  # (B,S,H,d)
        visible = context.get("visible")  # (B,S)
        if visible is not None:
            some = ops.any(visible, axis=1)[:, None, None]  # (B,1,1)
            visible = visible[:, None, None, :]  # (B,1,1,S)
        images, positions = ops.shape(keys)[0], ops.shape(keys)[1]
        rows, length = ops.shape(x)[0], ops.shape(x)[1]
        captions = rows // images
        queries = ops.reshape(
            self.query(x), (images, captions * length, self.heads, self.width // self.heads)
        )  # (B,K*T,H,d)
        mixed, weights = attend(
            queries, keys, values, visible, self.attention_dropout, training
        )  # (B,K*T,D), (B,H,K*T,S)
        output = self.c_proj(mixed)  # (B,K*T,D)
        if visible is not None:
            output = ops.where(some, output, ops.zeros((), output.dtype))  # (B,K*T,D)
            weights = ops.where(visible, weights, ops.zeros((), weights.dtype))  # (B,H,K*T,S)
        output = ops.reshape(output, (rows, length, self.width))  # (R,T,D)
        weights = ops.reshape(
            weights, (images, self.heads, captions, length, positions)
        )  # (B,H,K,T,S)
        weights = ops.transpose(weights, (0, 2, 1, 3, 4))  # (B,K,H,T,S)
        weights = ops.reshape(weights, (rows, self.heads, length, positions))  # (R,H,T,S)
        return output, weights
