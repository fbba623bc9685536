"""Mappers of memory to a prefix: linear and MLP, for each position or for one vector."""

from __future__ import annotations

from abc import abstractmethod
from typing import Any

import keras
from keras import ops

from effcap.layers.attention import dense
from effcap.layers.lora import AdaptableDense

CLIPCAP_EXPANSION = 2  # hidden width of ClipCap's MLP as a fraction of its output: 1 / 2


def mapper_dense(units: int, name: str, use_bias: bool = True) -> AdaptableDense:
    """Creates a dense layer whose kernel is initialized as PyTorch does, as in ClipCap."""
    initializer = keras.initializers.VarianceScaling(1 / 3, "fan_in", "uniform")
    return AdaptableDense(units, use_bias=use_bias, kernel_initializer=initializer, name=name)


class Mapper(keras.layers.Layer):
    """Base class of mappers.

    Call arguments:
        x: (B, S, C), values of the memory.
        memory_mask: bool (B, S), false at padding. None where nothing is padding.

    Returns:
        The prefix (B, P, D), and its mask (B, P) or None.

    Attributes:
        prefix_length: number P of positions, known once the mapper is built.
    """

    prefix_length: int

    @abstractmethod
    def call(self, x: Any, memory_mask: Any = None) -> tuple[Any, Any]:
        """Maps memory to a prefix."""


class LinearMapper(Mapper):
    """A linear map of each memory position, initialized as in GPT-2.

    Args:
        hidden_dim: model width D.
    """

    def __init__(self, hidden_dim: int, **kwargs: Any):
        super().__init__(**kwargs)
        self.projection = dense(hidden_dim, "projection")

    def build(self, shape: Any) -> None:
        self.prefix_length = fixed_length(shape)
        self.projection.build(shape)
        self.built = True

    def call(self, x: Any, memory_mask: Any = None) -> tuple[Any, Any]:
        return self.projection(x), memory_mask  # (B,P,D)


class MLPMapper(Mapper):
    """An MLP of each memory position with a tanh, as in OPG: C -> 4*D -> D.

    Args:
        hidden_dim: model width D.
        intermediate_dim: width of the hidden layer. None takes 4*D.
    """

    def __init__(self, hidden_dim: int, intermediate_dim: int | None = None, **kwargs: Any):
        super().__init__(**kwargs)
        self.intermediate_dim = intermediate_dim or 4 * hidden_dim
        self.fc1 = mapper_dense(self.intermediate_dim, "fc1")
        self.fc2 = mapper_dense(hidden_dim, "fc2")

    def build(self, shape: Any) -> None:
        self.prefix_length = fixed_length(shape)
        self.fc1.build(shape)
        self.fc2.build((*shape[:-1], self.intermediate_dim))
        self.built = True

    def call(self, x: Any, memory_mask: Any = None) -> tuple[Any, Any]:
        return self.fc2(ops.tanh(self.fc1(x))), memory_mask  # (B,P,4D) -> (B,P,D)


class ClipCapMLPMapper(Mapper):
    """ClipCap's MLP of one vector with a tanh: C -> P*D/2 -> P*D.

    Source: Mokady et al., "ClipCap: CLIP Prefix for Image Captioning", 2021.

    Args:
        hidden_dim: model width D.
        prefix_length: number P of prefix positions. Default 10.
    """

    def __init__(self, hidden_dim: int, prefix_length: int = 10, **kwargs: Any):
        super().__init__(**kwargs)
        check_positive("prefix_length", prefix_length)
        self.hidden_dim, self.prefix_length = hidden_dim, prefix_length
        self.intermediate_dim = prefix_length * hidden_dim // CLIPCAP_EXPANSION
        self.fc1 = mapper_dense(self.intermediate_dim, "fc1")
        self.fc2 = mapper_dense(prefix_length * hidden_dim, "fc2")

    def build(self, shape: Any) -> None:
        check_single_vector(shape)
        self.fc1.build((None, shape[-1]))
        self.fc2.build((None, self.intermediate_dim))
        self.built = True

    def call(self, x: Any, memory_mask: Any = None) -> tuple[Any, Any]:
        x = self.fc2(ops.tanh(self.fc1(x[:, 0])))  # (B,C) -> (B,P*D/2) -> (B,P*D)
        return ops.reshape(x, (-1, self.prefix_length, self.hidden_dim)), None  # (B,P,D)


def fixed_length(shape: Any) -> int:
    """Returns the length S of memory of a shape (B, S, C).

    Raises:
        ValueError: the length varies.
    """
    if shape[1] is None:
        raise ValueError(
            "Expected an encoder whose memory has a fixed length, such as encoder.kind='image', or "
            "decoder.fusion.mapper.kind='transformer'. Received: memory of varying length"
        )
    return shape[1]


def check_single_vector(shape: Any) -> None:
    """Checks that memory of a shape (B, S, C) is one vector.

    Raises:
        ValueError: it is several.
    """
    if shape[1] != 1:
        raise ValueError(
            "ClipCap's mappers take one vector: set encoder.kind='backbone' and "
            f"encoder.pooling='mean' or 'first'. Received: memory of {shape[1]} positions"
        )


def check_positive(name: str, value: Any) -> None:
    """Checks that a hyperparameter of the mapper is a positive integer.

    Raises:
        ValueError: it is not.
    """
    if not isinstance(value, int) or isinstance(value, bool) or value < 1:
        raise ValueError(
            f"Expected decoder.fusion.mapper.{name} of at least 1. Received: {name}={value!r}"
        )
