"""Fusions with elementwise gates between text and memory."""

from __future__ import annotations

import math
from typing import Any

import keras
from keras import ops

from effcap.layers.attention import INITIALIZER_STDDEV, CrossAttention, dense


def resurrecting_gate(alpha: Any, tau: float, text: Any, attended: Any) -> Any:
    """Computes the self-resurrecting activation unit: alpha * text + (1 - alpha) * attended.

    Each term is dropped where its weight is not above tau. With tau = 0 this is a soft mix, with
    tau = 0.5 a hard choice. Source: Chen et al., "VisualGPT", CVPR 2022.

    Args:
        alpha: (..., D), from 0 to 1.
        tau: threshold.
        text: (..., D).
        attended: (..., D), the output of cross-attention.

    Returns:
        (..., D).
    """
    zero = ops.zeros((), alpha.dtype)
    text_weight = ops.where(alpha > tau, alpha, zero)  # (...,D)
    attended_weight = ops.where(alpha < 1 - tau, 1 - alpha, zero)  # (...,D)
    return text_weight * text + attended_weight * attended


def check_tau(tau: float) -> float:
    """Checks the threshold of gates and returns it as a float.

    Raises:
        ValueError: it is not a number from 0 up to but not including 1.
    """
    if isinstance(tau, bool) or not isinstance(tau, int | float) or not 0 <= tau < 1:
        raise ValueError(
            f"Expected fusion.tau from 0 up to but not including 1. Received: tau={tau!r}"
        )
    return float(tau)


class MeshedFusion(keras.layers.Layer):
    """VisualGPT's fusion: one cross-attention on every level of memory, and a gate for each level.

    With h the text, n the block's first layer norm, and m_i the levels:
    e_i = cross(n(h), n(m_i)); a_i = sigmoid(W_i[h; e_i] + b_i); h becomes the sum over i of
    `resurrecting_gate(a_i, tau, h, e_i)`, divided by the square root of the number of levels.
    There is no residual connection around it.

    Args:
        hidden_dim: model width D.
        num_heads: number of heads.
        dropout: rate on the output of cross-attention. Default 0.0.
        attention_dropout: rate on the attention weights. Default 0.0.
        tau: threshold of the gates. Default 0.2.

    Call arguments, returns: as in `CrossFusion`.
    """

    in_blocks = True

    def __init__(
        self,
        hidden_dim: int,
        num_heads: int,
        dropout: float = 0.0,
        attention_dropout: float = 0.0,
        tau: float = 0.2,
        **kwargs: Any,
    ):
        super().__init__(**kwargs)
        self.tau, self.hidden_dim = check_tau(tau), hidden_dim
        self.attention = CrossAttention(
            hidden_dim, num_heads, attention_dropout, INITIALIZER_STDDEV, name="attention"
        )
        self.dropout = keras.layers.Dropout(dropout, name="dropout")

    def build(self, shape: Any, memory_shapes: Any) -> None:
        self.attention.build(shape, memory_shapes[0])
        self.gates = [dense(self.hidden_dim, f"gate_{i}") for i in range(len(memory_shapes))]
        for gate in self.gates:
            gate.build((*shape[:-1], 2 * self.hidden_dim))
        self.built = True

    def precompute_kv(self, memory: Any, norm: keras.layers.Layer) -> list[dict]:
        """Computes the keys and values, each (B, H, S, d), of each level of memory."""
        return [self.attention.precompute_kv(norm(level.values), level.mask) for level in memory]

    def call(
        self, x: Any, memory_kv: list[dict], norm: Any, training: bool | None = None
    ) -> tuple[Any, tuple]:
        queries, mixed, all_weights = norm(x), 0.0, []
        for gate, level_kv in zip(self.gates, memory_kv, strict=True):
            attended, weights = self.attention(queries, level_kv, training=training)  # (R,T,D)
            attended = self.dropout(attended, training=training)
            alpha = ops.sigmoid(gate(ops.concatenate([x, attended], axis=-1)))  # (R,T,D)
            mixed = mixed + resurrecting_gate(alpha, self.tau, x, attended)  # (R,T,D)
            all_weights.append(weights)
        return mixed / math.sqrt(len(self.gates)), tuple(all_weights)


class ModalityFusion(keras.layers.Layer):
    """PlayNTell's fusion: the sum of a cross-attention on every memory, gated or added.

    With h the text, n the block's first layer norm, and m_k the memories: e is the sum over k of
    cross_k(n(h), n(m_k)); gated, a = sigmoid(W[h; e] + b) and h becomes
    `resurrecting_gate(a, tau, h, e)`; otherwise h + e.

    Args:
        hidden_dim: model width D.
        num_heads: number of heads.
        dropout: rate on the sum. Default 0.0.
        attention_dropout: rate on the attention weights. Default 0.0.
        gate: whether there is a gate. Default True.
        tau: threshold of the gate. Default 0.2.

    Call arguments, returns: as in `CrossFusion`.
    """

    in_blocks = True

    def __init__(
        self,
        hidden_dim: int,
        num_heads: int,
        dropout: float = 0.0,
        attention_dropout: float = 0.0,
        gate: bool = True,
        tau: float = 0.2,
        **kwargs: Any,
    ):
        super().__init__(**kwargs)
        if not isinstance(gate, bool):
            raise ValueError(f"Expected fusion.gate true or false. Received: gate={gate!r}")
        self.tau, self.hidden_dim, self.num_heads = check_tau(tau), hidden_dim, num_heads
        self.attention_dropout = attention_dropout
        self.gate = dense(hidden_dim, "gate") if gate else None
        self.dropout = keras.layers.Dropout(dropout, name="dropout")

    def build(self, shape: Any, memory_shapes: Any) -> None:
        # Without a gate, a new captioner generates the same text as its language model.
        stddev = 0.0 if self.gate is None else INITIALIZER_STDDEV
        self.attentions = []
        for i, memory_shape in enumerate(memory_shapes):
            attention = CrossAttention(
                self.hidden_dim,
                self.num_heads,
                self.attention_dropout,
                stddev,
                name=f"attention_{i}",
            )
            attention.build(shape, memory_shape)
            self.attentions.append(attention)
        if self.gate is not None:
            self.gate.build((*shape[:-1], 2 * self.hidden_dim))
        self.built = True

    def precompute_kv(self, memory: Any, norm: keras.layers.Layer) -> list[dict]:
        """Computes the keys and values, each (B, H, S, d), of each memory."""
        return [
            attention.precompute_kv(norm(modality.values), modality.mask)
            for attention, modality in zip(self.attentions, memory, strict=True)
        ]

    def call(
        self, x: Any, memory_kv: list[dict], norm: Any, training: bool | None = None
    ) -> tuple[Any, tuple]:
        queries, attended, all_weights = norm(x), 0.0, []
        for attention, modality_kv in zip(self.attentions, memory_kv, strict=True):
            output, weights = attention(queries, modality_kv, training=training)  # (R,T,D)
            attended = attended + output
            all_weights.append(weights)
        attended = self.dropout(attended, training=training)
        if self.gate is None:
            return x + attended, tuple(all_weights)
        alpha = ops.sigmoid(self.gate(ops.concatenate([x, attended], axis=-1)))  # (R,T,D)
        return resurrecting_gate(alpha, self.tau, x, attended), tuple(all_weights)
