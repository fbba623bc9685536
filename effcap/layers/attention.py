"""Multi-head attention: self-attention with a cache, and cross-attention on memory."""

from __future__ import annotations

import math
from typing import Any

import keras
from keras import ops

from effcap.layers.lora import AdaptableDense

INITIALIZER_STDDEV = 0.02  # GPT-2's
MASKED_SCORE = -1e30
MIN_OPEN_WEIGHT = 1e-3  # limits gradients where closed gates have almost all the weight


def attend(
    queries: Any,
    keys: Any,
    values: Any,
    mask: Any = None,
    dropout: keras.layers.Layer | None = None,
    training: bool | None = None,
) -> tuple[Any, Any]:
    """Computes scaled dot-product attention (Vaswani et al. 2017), with the softmax in float32.

    Args:
        queries: (B, H, Q, d).
        keys: (B, H, S, d).
        values: (B, H, S, d).
        mask: bool, broadcastable to (B, 1, Q, S), true where a query attends. None attends
            everywhere.
        dropout: layer applied to the attention weights. None applies none.
        training: whether dropout is active.

    Returns:
        The output (B, Q, H*d), and the attention weights (B, H, Q, S) before dropout.
    """
    weights = attention_weights(attention_scores(queries, keys, mask), values.dtype)  # (B,H,Q,S)
    dropped = weights if dropout is None else dropout(weights, training=training)
    return weighted_values(dropped, values), weights


def attention_scores(queries: Any, keys: Any, mask: Any = None) -> Any:
    """Computes float32 scores (B, H, Q, S) of queries (B, H, Q, d) and keys (B, H, S, d)."""
    queries = queries * (1.0 / math.sqrt(queries.shape[-1]))
    scores = ops.matmul(queries, ops.swapaxes(keys, 2, 3))  # (B,H,Q,S)
    scores = ops.cast(scores, "float32")
    return scores if mask is None else ops.where(mask, scores, MASKED_SCORE)


def attention_weights(scores: Any, dtype: Any) -> Any:
    """Computes the softmax of scores (B, H, Q, S) over S, in `dtype`."""
    # Keras warns of a softmax over one position, and of variables without a gradient.
    weights = 0 * scores + 1 if scores.shape[-1] == 1 else ops.softmax(scores, axis=-1)
    return ops.cast(weights, dtype)  # (B,H,Q,S)


def gate_gradient(scores: Any, gate: Any, dtype: Any) -> Any:
    """Computes zeros with the gradient that gates on attention have for their values.

    With gates, the weights are gate * exp(score), normalized. A closed gate has a gradient too:
    that of opening it.

    Args:
        scores: (R, H, T, P+S), without a mask on the first P positions.
        gate: (R, P), 0 or 1.
        dtype: dtype of the result.

    Returns:
        (R, H, T, P+S), all zero; the scores get no gradient.
    """
    weights = ops.stop_gradient(ops.softmax(scores, axis=-1))  # (R,H,T,P+S)
    num_gates, gate = gate.shape[1], ops.cast(gate, weights.dtype)
    gated = weights[..., :num_gates] * gate[:, None, None, :]  # (R,H,T,P)
    gated = ops.concatenate([gated, weights[..., num_gates:]], axis=-1)  # (R,H,T,P+S)
    total = ops.sum(gated, axis=-1, keepdims=True)  # (R,H,T,1)
    gated = gated / ops.maximum(total, MIN_OPEN_WEIGHT)  # (R,H,T,P+S)
    return ops.cast(gated - ops.stop_gradient(gated), dtype)


def weighted_values(weights: Any, values: Any) -> Any:
    """Computes the sums (B, Q, H*d) of values (B, H, S, d) by weights (B, H, Q, S)."""
    length = weights.shape[2] or ops.shape(weights)[2]
    num_heads, head_dim = values.shape[1], values.shape[3]
    mixed = ops.swapaxes(ops.matmul(weights, values), 1, 2)  # (B,H,Q,d) -> (B,Q,H,d)
    return ops.reshape(mixed, (-1, length, num_heads * head_dim))  # (B,Q,H*d)


def split_heads(x: Any, num_tensors: int, num_heads: int) -> list[Any]:
    """Splits (B, T, N*H*d) into `num_tensors` N tensors of shape (B, H, T, d)."""
    length = x.shape[1] or ops.shape(x)[1]
    tensors = ops.split(x, num_tensors, axis=-1)  # N x (B,T,H*d)
    shape = (-1, length, num_heads, tensors[0].shape[-1] // num_heads)
    return [ops.swapaxes(ops.reshape(tensor, shape), 1, 2) for tensor in tensors]


def dense(
    units: int, name: str, stddev: float = INITIALIZER_STDDEV, use_bias: bool = True
) -> AdaptableDense:
    """Creates a dense layer initialized as in GPT-2; with `stddev=0` its kernel starts at zero."""
    initializer = keras.initializers.RandomNormal(stddev=stddev) if stddev else "zeros"
    return AdaptableDense(units, use_bias=use_bias, kernel_initializer=initializer, name=name)


def check_num_heads(hidden_dim: int, num_heads: int) -> None:
    """Checks that `hidden_dim` splits evenly into `num_heads`.

    Raises:
        ValueError: it does not.
    """
    if hidden_dim < 1 or num_heads < 1 or hidden_dim % num_heads:
        raise ValueError(
            "Expected a hidden_dim that is a positive multiple of num_heads. "
            f"Received: hidden_dim={hidden_dim}, num_heads={num_heads}"
        )


def share_rows(x: Any, images: Any) -> Any:
    """Puts the K rows of an image side by side: (B*K, H, T, N) -> (B, H, K*T, N)."""
    rows, num_heads, length, width = ops.shape(x)
    x = ops.reshape(x, (images, rows // images, num_heads, length, width))  # (B,K,H,T,N)
    x = ops.swapaxes(x, 1, 2)  # (B,K,H,T,N) -> (B,H,K,T,N)
    return ops.reshape(x, (images, num_heads, -1, width))  # (B,H,KT,N)


class SelfAttention(keras.layers.Layer):
    """Self-attention with GPT-2's fused query-key-value projection.

    Args:
        hidden_dim: model width D.
        num_heads: number of heads H, a divisor of D.
        dropout: rate on the attention weights. Default 0.0.
        output_stddev: standard deviation of the initial output projection. Default 0.02.
        qkv_bias: whether queries, keys and values have biases. Default True.

    Call arguments:
        x: (R, T, D).
        attention_mask: bool (R or 1, T, S), true where position t attends to s. None attends
            everywhere.
        cache: `{"keys", "values"}`, each (R, H, S, d): buffers of earlier positions, into which the
            keys and values of x are written at `position`. None uses those of x alone.
        position: int scalar, where in the buffers x starts. None appends x to them: S grows by T.
        prefix_kv: `{"keys", "values"}`, each (B, H, P, d), of a prefix that all R = B*K rows of an
            image attend to; optionally `"mask"`, bool (B, P), and, with one row per image,
            `"gate"` (B, P), the mask as a number whose gradient is computed. None, or no
            `"keys"`, for no prefix.

    Returns:
        The output (R, T, D), the keys and values attended to as `{"keys", "values"}`, which are
        the updated cache, and the attention weights on the prefix, (R, H, T, P) or None.
    """

    def __init__(
        self,
        hidden_dim: int,
        num_heads: int,
        dropout: float = 0.0,
        output_stddev: float = INITIALIZER_STDDEV,
        qkv_bias: bool = True,
        **kwargs: Any,
    ):
        super().__init__(**kwargs)
        check_num_heads(hidden_dim, num_heads)
        self.hidden_dim, self.num_heads = hidden_dim, num_heads
        self.c_attn = dense(3 * hidden_dim, "c_attn", use_bias=qkv_bias)
        self.c_proj = dense(hidden_dim, "c_proj", output_stddev)
        self.attention_dropout = keras.layers.Dropout(dropout, name="attention_dropout")

    def build(self, shape: Any) -> None:
        self.c_attn.build(shape)
        self.c_proj.build(shape)
        self.built = True

    def call(
        self,
        x: Any,
        attention_mask: Any = None,
        cache: dict | None = None,
        position: Any = None,
        prefix_kv: dict | None = None,
        training: bool | None = None,
    ) -> tuple[Any, dict, Any]:
        queries, keys, values = split_heads(self.c_attn(x), 3, self.num_heads)  # 3 x (R,H,T,d)
        if cache is not None and position is None:
            keys = ops.concatenate([cache["keys"], keys], axis=2)  # (R,H,S+T,d)
            values = ops.concatenate([cache["values"], values], axis=2)  # (R,H,S+T,d)
        elif cache is not None:
            keys = ops.slice_update(cache["keys"], (0, 0, position, 0), keys)  # (R,H,S,d)
            values = ops.slice_update(cache["values"], (0, 0, position, 0), values)  # (R,H,S,d)
        cache = {"keys": keys, "values": values}
        mask = None if attention_mask is None else ops.expand_dims(attention_mask, 1)  # (R,1,T,S)
        if prefix_kv is None or "keys" not in prefix_kv:
            mixed, _ = attend(queries, keys, values, mask, self.attention_dropout, training)
            return self.c_proj(mixed), cache, None
        scores = attention_scores(queries, keys, mask)  # (R,H,T,S)
        prefix_scores = self._prefix_scores(queries, prefix_kv, prefix_kv.get("mask"))
        num_prefix = prefix_kv["keys"].shape[2]
        all_scores = ops.concatenate([prefix_scores, scores], axis=-1)  # (R,H,T,P+S)
        weights = attention_weights(all_scores, values.dtype)  # (R,H,T,P+S)
        if "gate" in prefix_kv:
            open_scores = self._prefix_scores(queries, prefix_kv)  # (R,H,T,P)
            open_scores = ops.concatenate([open_scores, scores], axis=-1)  # (R,H,T,P+S)
            weights = weights + gate_gradient(open_scores, prefix_kv["gate"], values.dtype)
        dropped = self.attention_dropout(weights, training=training)
        mixed = weighted_values(dropped[..., num_prefix:], values)  # (R,T,D)
        mixed = mixed + self._prefix_values(dropped[..., :num_prefix], prefix_kv["values"])
        return self.c_proj(mixed), cache, weights[..., :num_prefix]

    def _prefix_scores(self, queries: Any, prefix_kv: dict, mask: Any = None) -> Any:
        """Computes scores (R, H, T, P) on the prefix, whose keys are not repeated for each row."""
        rows, length = ops.shape(queries)[0], ops.shape(queries)[2]
        keys = prefix_kv["keys"]  # (B,H,P,d)
        images, num_prefix = ops.shape(keys)[0], keys.shape[2]
        if mask is not None:
            mask = ops.expand_dims(mask, (1, 2))  # (B,1,1,P)
        shared = share_rows(queries, images)  # (B,H,KT,d)
        scores = attention_scores(shared, keys, mask)  # (B,H,KT,P)
        scores = ops.reshape(
            scores, (images, self.num_heads, rows // images, length, num_prefix)
        )  # (B,H,K,T,P)
        scores = ops.swapaxes(scores, 1, 2)  # (B,H,K,T,P) -> (B,K,H,T,P)
        return ops.reshape(scores, (rows, self.num_heads, length, num_prefix))  # (R,H,T,P)

    def _prefix_values(self, weights: Any, values: Any) -> Any:
        """Computes the sums (R, T, D) of the prefix's values (B, H, P, d) by weights."""
        rows, length = ops.shape(weights)[0], ops.shape(weights)[2]
        mixed = weighted_values(share_rows(weights, ops.shape(values)[0]), values)  # (B,KT,D)
        return ops.reshape(mixed, (rows, length, self.hidden_dim))  # (R,T,D)


class CrossAttention(keras.layers.Layer):
    """Attention of text on memory.

    Keys and values are computed once per image by `precompute_kv` and shared by its rows.

    Args:
        hidden_dim: model width D of the text.
        num_heads: number of heads H, a divisor of D.
        dropout: rate on the attention weights. Default 0.0.
        output_stddev: standard deviation of the initial output projection. Default 0.0, which
            starts it at zero.

    Call arguments:
        x: (R, T, D) with R = B*K rows, the K rows of an image adjacent.
        memory_kv: result of `precompute_kv`, with B rows.

    Returns:
        The output (R, T, D) and the attention weights (R, H, T, S). Both are zero in rows whose
        memory is masked altogether.
    """

    def __init__(
        self,
        hidden_dim: int,
        num_heads: int,
        dropout: float = 0.0,
        output_stddev: float = 0.0,
        **kwargs: Any,
    ):
        super().__init__(**kwargs)
        check_num_heads(hidden_dim, num_heads)
        self.hidden_dim, self.num_heads = hidden_dim, num_heads
        self.query = dense(hidden_dim, "query")
        self.key_value = dense(2 * hidden_dim, "key_value")
        self.c_proj = dense(hidden_dim, "c_proj", output_stddev)
        self.attention_dropout = keras.layers.Dropout(dropout, name="attention_dropout")

    def build(self, shape: Any, memory_shape: Any) -> None:
        self.query.build(shape)
        self.key_value.build(memory_shape)
        self.c_proj.build(shape)
        self.built = True

    def precompute_kv(self, memory: Any, mask: Any = None) -> dict:
        """Computes the keys and values, each (B, H, S, d), of memory (B, S, D).

        Args:
            memory: (B, S, D).
            mask: bool (B, S), false at padding. None masks nothing.
        """
        keys, values = split_heads(self.key_value(memory), 2, self.num_heads)  # 2 x (B,H,S,d)
        memory_kv = {"keys": keys, "values": values}
        return memory_kv if mask is None else {**memory_kv, "mask": mask}

    def call(self, x: Any, memory_kv: dict, training: bool | None = None) -> tuple[Any, Any]:
        keys, values = memory_kv["keys"], memory_kv["values"]  # (B,H,S,d)
        mask = memory_kv.get("mask")  # (B,S)
        if mask is not None:
            # Slices with new axes of conditions are no operation of LiteRT.
            any_real = ops.expand_dims(ops.any(mask, axis=1), (1, 2))  # (B,1,1)
            mask = ops.expand_dims(mask, (1, 2))  # (B,1,1,S)
        images, positions = ops.shape(keys)[0], ops.shape(keys)[2]
        rows, length = ops.shape(x)[0], ops.shape(x)[1]
        captions = rows // images
        queries = self.query(x)  # (R,T,D)
        queries = ops.reshape(queries, (images, captions * length, self.hidden_dim))  # (B,K*T,D)
        (queries,) = split_heads(queries, 1, self.num_heads)  # (B,H,K*T,d)
        mixed, weights = attend(
            queries, keys, values, mask, self.attention_dropout, training
        )  # (B,K*T,D), (B,H,K*T,S)
        output = self.c_proj(mixed)  # (B,K*T,D)
        if mask is not None:
            output = ops.where(any_real, output, ops.zeros((), output.dtype))  # (B,K*T,D)
            weights = ops.where(mask, weights, ops.zeros((), weights.dtype))  # (B,H,K*T,S)
        output = ops.reshape(output, (rows, length, self.hidden_dim))  # (R,T,D)
        weights = ops.reshape(
            weights, (images, self.num_heads, captions, length, positions)
        )  # (B,H,K,T,S)
        weights = ops.swapaxes(weights, 1, 2)  # (B,H,K,T,S) -> (B,K,H,T,S)
        weights = ops.reshape(weights, (rows, self.num_heads, length, positions))  # (R,H,T,S)
        return output, weights
