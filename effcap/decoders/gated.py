"""Fusion through gates that decide, number by number, between text and what is seen."""

from __future__ import annotations

import math

import keras
from keras import ops

from effcap.layers.attention import INITIALIZER_STDDEV, CrossAttention, dense


def resurrecting_gate(alpha, tau: float, text, seen):
    """The self-resurrecting activation unit: alpha of the text and 1 - alpha of what is seen, each
    left out where its share is no more than tau.

    Chen et al., "VisualGPT", CVPR 2022. With tau = 0 it is a soft mix, with tau = 0.5 a choice.

    Args:
        alpha: (..., D), of 0 to 1.
        tau: the threshold.
        text, seen: (..., D).

    Returns:
        (..., D).
    """
    zero = ops.zeros((), alpha.dtype)
    kept = ops.where(alpha > tau, alpha, zero)  # (...,D)
    added = ops.where(alpha < 1 - tau, 1 - alpha, zero)  # (...,D)
    return kept * text + added * seen


def check_tau(tau: float) -> float:
    """A threshold of gates; ValueError unless it is from 0 up to but not including 1."""
    if isinstance(tau, bool) or not isinstance(tau, int | float) or not 0 <= tau < 1:
        raise ValueError(
            f"Expected fusion.tau from 0 up to but not including 1. Received: tau={tau!r}"
        )
    return float(tau)


class MeshedFusion(keras.layers.Layer):
    """VisualGPT's: one cross-attention on every level of memory, a gate for each.

    With h the text, n the block's first layer norm, and m_i the levels:
    e_i = cross(n(h), n(m_i)); a_i = sigmoid(W_i[h; e_i] + b_i); h becomes the sum over i of
    `resurrecting_gate(a_i, tau, h, e_i)`, divided by the square root of the number of levels. It
    takes the place of the text: there is no residual connection around it.

    Args:
        width: model width D.
        heads: number of heads.
        dropout: rate on what is seen.
        attention_dropout: rate on the attention weights.
        tau: threshold of the gates.

    Call arguments, returns: as in `CrossFusion`.
    """

    def __init__(
        self,
        width: int,
        heads: int,
        dropout: float = 0.0,
        attention_dropout: float = 0.0,
        tau: float = 0.2,
        **kwargs,
    ):
        super().__init__(**kwargs)
        self.tau, self.width = check_tau(tau), width
        self.attention = CrossAttention(
            width, heads, attention_dropout, INITIALIZER_STDDEV, name="attention"
        )
        self.dropout = keras.layers.Dropout(dropout, name="dropout")

    def build(self, shape, memory_shapes):
        self.attention.build(shape, memory_shapes[0])
        self.gates = [dense(self.width, f"gate_{i}") for i in range(len(memory_shapes))]
        for gate in self.gates:
            gate.build((*shape[:-1], 2 * self.width))
        self.built = True

    def project(self, memory, norm) -> list[dict]:
        """The context of each level of memory: keys and values, each (B, S, H, d)."""
        return [self.attention.project(norm(level.values), level.visible) for level in memory]

    def call(self, x, contexts, norm, training=None):
        queries, mixed, looks = norm(x), 0.0, []
        for gate, context in zip(self.gates, contexts, strict=True):
            seen, weights = self.attention(queries, context, training=training)  # (R,T,D)
            seen = self.dropout(seen, training=training)
            alpha = ops.sigmoid(gate(ops.concatenate([x, seen], axis=-1)))  # (R,T,D)
            mixed = mixed + resurrecting_gate(alpha, self.tau, x, seen)  # (R,T,D)
            looks.append(weights)
        return mixed / math.sqrt(len(self.gates)), tuple(looks)


class BranchFusion(keras.layers.Layer):
    """PlayNTell's: a cross-attention on every memory, summed up, gated or added.

    With h the text, n the block's first layer norm, and m_k the memories: e is the sum over k of
    cross_k(n(h), n(m_k)); gated, a = sigmoid(W[h; e] + b) and h becomes
    `resurrecting_gate(a, tau, h, e)`; else h + e.

    Args:
        width: model width D.
        heads: number of heads.
        dropout: rate on what is seen.
        attention_dropout: rate on the attention weights.
        gate: whether there is a gate.
        tau: threshold of the gate.

    Call arguments, returns: as in `CrossFusion`.
    """

    def __init__(
        self,
        width: int,
        heads: int,
        dropout: float = 0.0,
        attention_dropout: float = 0.0,
        gate: bool = True,
        tau: float = 0.2,
        **kwargs,
    ):
        super().__init__(**kwargs)
        if not isinstance(gate, bool):
            raise ValueError(f"Expected fusion.gate true or false. Received: gate={gate!r}")
        self.tau, self.width, self.heads = check_tau(tau), width, heads
        self.attention_dropout = attention_dropout
        self.gate = dense(width, "gate") if gate else None
        self.dropout = keras.layers.Dropout(dropout, name="dropout")

    def build(self, shape, memory_shapes):
        # Without a gate, a new captioner writes what its GPT-2 writes, as with `CrossFusion`.
        stddev = 0.0 if self.gate is None else INITIALIZER_STDDEV
        self.attentions = []
        for number, memory_shape in enumerate(memory_shapes):
            attention = CrossAttention(
                self.width, self.heads, self.attention_dropout, stddev, name=f"attention_{number}"
            )
            attention.build(shape, memory_shape)
            self.attentions.append(attention)
        if self.gate is not None:
            self.gate.build((*shape[:-1], 2 * self.width))
        self.built = True

    def project(self, memory, norm) -> list[dict]:
        """The context of each memory: keys and values, each (B, S, H, d)."""
        return [
            attention.project(norm(part.values), part.visible)
            for attention, part in zip(self.attentions, memory, strict=True)
        ]

    def call(self, x, contexts, norm, training=None):
        queries, seen, looks = norm(x), 0.0, []
        for attention, context in zip(self.attentions, contexts, strict=True):
            found, weights = attention(queries, context, training=training)  # (R,T,D)
            seen = seen + found
            looks.append(weights)
        seen = self.dropout(seen, training=training)
        if self.gate is None:
            return x + seen, tuple(looks)
        alpha = ops.sigmoid(self.gate(ops.concatenate([x, seen], axis=-1)))  # (R,T,D)
        return resurrecting_gate(alpha, self.tau, x, seen), tuple(looks)
