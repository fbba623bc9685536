"""Transformer blocks of encoders and decoders."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import keras

from effcap.layers.attention import INITIALIZER_STDDEV, SelfAttention, dense

GELU_SLOPE, GELU_CUBE = 2 * math.sqrt(2 / math.pi), 0.044715


def gelu_tanh(x: Any) -> Any:
    """Computes GPT-2's form of GELU (Hendrycks and Gimpel 2016), through a tanh."""
    # Equal to 0.5 * (1 + tanh(...)), without powers and with less work for its gradient.
    return x * keras.ops.sigmoid(x * (GELU_SLOPE + GELU_SLOPE * GELU_CUBE * x * x))


def quick_gelu(x: Any) -> Any:
    """Computes CLIP's approximation of GELU (Radford et al. 2021), through a sigmoid."""
    return x * keras.ops.sigmoid(1.702 * x)


# By their names in transformers.
ACTIVATIONS: dict[str, Callable[[Any], Any]] = {
    "gelu": keras.activations.gelu,
    "gelu_new": gelu_tanh,
    "quick_gelu": quick_gelu,
    "relu": keras.activations.relu,
}


def find_activation(name: str) -> Callable[[Any], Any]:
    """Returns the activation of a name in `ACTIVATIONS`.

    Raises:
        ValueError: there is none.
    """
    if name not in ACTIVATIONS:
        raise ValueError(
            f"Expected an activation out of {', '.join(ACTIVATIONS)}. Received: activation={name!r}"
        )
    return ACTIVATIONS[name]


class FeedForward(keras.layers.Layer):
    """An MLP of one hidden layer: D -> intermediate_dim -> D.

    Args:
        hidden_dim: model width D.
        intermediate_dim: width of the hidden layer.
        output_stddev: standard deviation of the initial output projection. Default 0.02.
        activation: activation of the hidden layer. Default GPT-2's GELU.
    """

    def __init__(
        self,
        hidden_dim: int,
        intermediate_dim: int,
        output_stddev: float = INITIALIZER_STDDEV,
        activation: Callable[[Any], Any] = gelu_tanh,
        **kwargs: Any,
    ):
        super().__init__(**kwargs)
        self.activation = activation
        self.c_fc = dense(intermediate_dim, "c_fc")
        self.c_proj = dense(hidden_dim, "c_proj", output_stddev)
        self.intermediate_dim = intermediate_dim

    def build(self, shape: Any) -> None:
        self.c_fc.build(shape)
        self.c_proj.build((*shape[:-1], self.intermediate_dim))
        self.built = True

    def call(self, x: Any) -> Any:
        hidden = self.activation(self.c_fc(x))  # (B,T,intermediate_dim)
        return self.c_proj(hidden)  # (B,T,D)


class TransformerBlock(keras.layers.Layer):
    """A pre-norm block: self-attention, fusion (in a decoder), MLP, each with a residual.

    Args:
        hidden_dim: model width D.
        num_heads: number of heads.
        intermediate_dim: width of the MLP's hidden layer. None takes 4*D.
        dropout: rate on the output of each sublayer. Default 0.0.
        attention_dropout: rate on the attention weights. Default 0.0.
        num_layers: number of blocks in the stack, by which GPT-2 scales its initial output
            projections. Default 1.
        fusion: fusion layer of `effcap.decoders`. None for none.
        activation: activation of the MLP's hidden layer. Default GPT-2's GELU.
        epsilon: epsilon of the layer norms. Default 1e-5.
        qkv_bias: whether queries, keys and values of self-attention have biases. Default True.

    Call arguments:
        x: (R, T, D).
        attention_mask, cache, position: as in `SelfAttention`.
        memory_kv: result of the decoder's `precompute_kv` for this block, with B rows: goes to the
            fusion layer or, without one, to self-attention as a prefix. None for no memory.

    Returns:
        The output (R, T, D), the keys and values of self-attention, which are the updated cache,
        and a tuple of attention weights (R, H, T, S), one for each memory.
    """

    is_residual_block = True  # for `find_blocks`, which does not look into layers

    def __init__(
        self,
        hidden_dim: int,
        num_heads: int,
        intermediate_dim: int | None = None,
        dropout: float = 0.0,
        attention_dropout: float = 0.0,
        num_layers: int = 1,
        fusion: keras.layers.Layer | None = None,
        activation: Callable[[Any], Any] = gelu_tanh,
        epsilon: float = 1e-5,
        qkv_bias: bool = True,
        **kwargs: Any,
    ):
        super().__init__(**kwargs)
        output_stddev = INITIALIZER_STDDEV / math.sqrt(2 * num_layers)
        self.ln_1 = keras.layers.LayerNormalization(epsilon=epsilon, name="ln_1")
        self.attn = SelfAttention(
            hidden_dim, num_heads, attention_dropout, output_stddev, qkv_bias, name="attn"
        )
        self.fusion = fusion
        self.ln_2 = keras.layers.LayerNormalization(epsilon=epsilon, name="ln_2")
        self.mlp = FeedForward(
            hidden_dim, intermediate_dim or 4 * hidden_dim, output_stddev, activation, name="mlp"
        )
        self.dropout = keras.layers.Dropout(dropout, name="dropout")

    def build(self, shape: Any, memory_shapes: Any = None) -> None:
        for layer in (self.ln_1, self.attn, self.ln_2, self.mlp):
            layer.build(shape)
        if self.fusion is not None:
            self.fusion.build(shape, memory_shapes)
        self.built = True

    def precompute_kv(self, memory: Any) -> list[dict]:
        """Computes the fusion layer's keys and values of each memory, once per image."""
        return [] if self.fusion is None else self.fusion.precompute_kv(memory, self.ln_1)

    def call(
        self,
        x: Any,
        attention_mask: Any = None,
        cache: dict | None = None,
        position: Any = None,
        memory_kv: Any = None,
        training: bool | None = None,
    ) -> tuple[Any, dict, tuple]:
        prefix_kv = memory_kv if self.fusion is None else None
        mixed, cache, prefix_weights = self.attn(
            self.ln_1(x),
            attention_mask=attention_mask,
            cache=cache,
            position=position,
            prefix_kv=prefix_kv,
            training=training,
        )  # (R,T,D)
        x = x + self.dropout(mixed, training=training)
        weights = () if prefix_weights is None else (prefix_weights,)
        if self.fusion is not None and memory_kv is not None:
            x, weights = self.fusion(x, memory_kv, norm=self.ln_1, training=training)  # (R,T,D)
        return x + self.dropout(self.mlp(self.ln_2(x)), training=training), cache, weights


class PostNormBlock(keras.layers.Layer):
    """A post-norm block: self-attention, fusion (in a decoder), MLP (Vaswani et al. 2017).

    Args:
        hidden_dim: model width D.
        num_heads: number of heads.
        intermediate_dim: width of the MLP's hidden layer.
        dropout: rate on the output of each sublayer. Default 0.0.
        attention_dropout: rate on the attention weights. Default 0.0.
        fusion: layer with its own residual connection and layer norm. None for none.
        activation: activation of the MLP's hidden layer. Default ReLU.
        epsilon: epsilon of the layer norms. Default 1e-5.

    Call arguments:
        x: (R, T, D).
        attention_mask, cache, position: as in `SelfAttention`.
        memory_kv: result of `precompute_kv`, with B rows. None for no memory.

    Returns:
        As in `TransformerBlock`.
    """

    def __init__(
        self,
        hidden_dim: int,
        num_heads: int,
        intermediate_dim: int,
        dropout: float = 0.0,
        attention_dropout: float = 0.0,
        fusion: keras.layers.Layer | None = None,
        activation: Callable[[Any], Any] = keras.activations.relu,
        epsilon: float = 1e-5,
        **kwargs: Any,
    ):
        super().__init__(**kwargs)
        self.attn = SelfAttention(hidden_dim, num_heads, attention_dropout, name="attn")
        self.ln_1 = keras.layers.LayerNormalization(epsilon=epsilon, name="ln_1")
        self.fusion = fusion
        self.mlp = FeedForward(hidden_dim, intermediate_dim, activation=activation, name="mlp")
        self.ln_2 = keras.layers.LayerNormalization(epsilon=epsilon, name="ln_2")
        self.dropout = keras.layers.Dropout(dropout, name="dropout")

    def build(self, shape: Any, memory_shapes: Any = None) -> None:
        for layer in (self.attn, self.ln_1, self.mlp, self.ln_2):
            layer.build(shape)
        if self.fusion is not None:
            self.fusion.build(shape, memory_shapes)
        self.built = True

    def precompute_kv(self, memory: Any) -> list[dict]:
        """Computes the fusion layer's keys and values of each memory, once per image."""
        return [] if self.fusion is None else self.fusion.precompute_kv(memory)

    def call(
        self,
        x: Any,
        attention_mask: Any = None,
        cache: dict | None = None,
        position: Any = None,
        memory_kv: list[dict] | None = None,
        training: bool | None = None,
    ) -> tuple[Any, dict, tuple]:
        mixed, cache, _ = self.attn(
            x, attention_mask=attention_mask, cache=cache, position=position, training=training
        )  # (R,T,D)
        x = self.ln_1(x + self.dropout(mixed, training=training))
        weights: tuple = ()
        if self.fusion is not None and memory_kv is not None:
            x, weights = self.fusion(x, memory_kv, training=training)  # (R,T,D)
        x = self.ln_2(x + self.dropout(self.mlp(x), training=training))
        return x, cache, weights
