"""The two Keras models that a captioner is exported as: its encoder, and a step of its decoder."""

from __future__ import annotations

from collections.abc import Sequence
from types import SimpleNamespace
from typing import Any, Protocol

import keras
import numpy as np

from effcap.decoders.base import Decoder
from effcap.export import encoder_signature

# Exports keep the names of inputs and outputs, but no nested structure.
MEMORY, CACHE, NEXT_CACHE = "memory_{:03}", "cache_{:03}", "next_cache_{:03}"
TOKENS, POSITIONS, MASK, LOGITS = "tokens", "positions", "mask", "logits"


class Traced(Protocol):
    """A Keras model that knows its inputs."""

    def signature(self) -> list[dict[str, keras.InputSpec]]:
        """Returns the inputs for `export`."""

    def export(self, filepath: str, **kwargs: Any) -> None:
        """Writes the model; see `keras.Model.export`."""


class EncoderModel(keras.Model):
    """Computes the keys and values of memory, from the inputs of an encoder.

    Args:
        encoder, decoder: those of a captioner.

    Call arguments:
        inputs: the encoder's inputs, B rows.

    Returns:
        The tensors of `Decoder.precompute_kv` as "memory_000" and so on.
    """

    def __init__(self, encoder: keras.layers.Layer, decoder: Decoder):
        super().__init__(name="encoder_model")
        self.encoder, self.decoder = encoder, decoder
        self._memory = SimpleNamespace(specs=None)  # hidden from Keras, which copies lists
        self.built = True

    def call(self, inputs: dict) -> dict:
        memory_kv = self.decoder.precompute_kv(self.encoder(inputs, training=False))
        self._memory.specs = keras.tree.map_structure(tensor_spec, memory_kv)
        return {MEMORY.format(i): x for i, x in enumerate(keras.tree.flatten(memory_kv))}

    @property
    def memory_specs(self) -> Any:
        """Shapes and dtypes of `Decoder.precompute_kv`; known once the model has been called."""
        return self._memory.specs

    def signature(self) -> list[dict[str, keras.InputSpec]]:
        """Returns the inputs for `export`."""
        return [dict(sorted(encoder_signature(self.encoder).items()))]


class DecoderModel(keras.Model):
    """Decodes tokens of each image, as `Decoder.extend` does.

    Args:
        decoder: decoder of a captioner.
        memory_specs: of an `EncoderModel`.
        output_tokens: tokens (N,) to compute logits of. Default all V.

    Call arguments:
        inputs: "tokens" (B, T), "positions" (T,), "mask" (B, T, S + T), the tensors of memory as
            "memory_000" and so on, and the keys and values (B, H, S, d) of each block as
            "cache_000" and so on.

    Returns:
        "logits" (B, T, V), or (B, T, N) of the output tokens, and the keys and values
        (B, H, S + T, d) of each block as "next_cache_000" and so on.
    """

    def __init__(self, decoder: Any, memory_specs: Any, output_tokens: Sequence[int] | None = None):
        super().__init__(name="decoder_model")
        self.decoder = decoder
        self._memory = SimpleNamespace(specs=memory_specs)
        self._output_tokens = None if output_tokens is None else np.array(output_tokens, np.int32)
        self.built = True

    def call(self, inputs: dict) -> dict:
        specs = self._memory.specs
        memory = [inputs[MEMORY.format(i)] for i in range(len(keras.tree.flatten(specs)))]
        cache = [
            {"keys": inputs[CACHE.format(2 * i)], "values": inputs[CACHE.format(2 * i + 1)]}
            for i in range(self.decoder.num_layers)
        ]
        logits, cache = self.decoder.extend(
            inputs[TOKENS],
            inputs[POSITIONS],
            inputs[MASK],
            cache,
            keras.tree.pack_sequence_as(specs, memory),
            self.decoder.output_head(self._output_tokens),
        )  # (B,T,V)
        flat = [layer[name] for layer in cache for name in ("keys", "values")]
        return {LOGITS: logits, **{NEXT_CACHE.format(i): x for i, x in enumerate(flat)}}

    def signature(self) -> list[dict[str, keras.InputSpec]]:
        """Returns the inputs for `export`, with a free number of rows, tokens and positions."""
        decoder = self.decoder
        head_dim = decoder.hidden_dim // decoder.num_heads
        specs = {
            TOKENS: keras.InputSpec("int32", (None, None), name=TOKENS),
            POSITIONS: keras.InputSpec("int32", (None,), name=POSITIONS),
            MASK: keras.InputSpec("bool", (None, None, None), name=MASK),
        }
        for i, spec in enumerate(keras.tree.flatten(self._memory.specs)):
            name = MEMORY.format(i)
            specs[name] = keras.InputSpec(spec.dtype, (None, *spec.shape[1:]), name=name)
        for i in range(2 * decoder.num_layers):
            name = CACHE.format(i)
            shape = (None, decoder.num_heads, None, head_dim)
            specs[name] = keras.InputSpec(decoder.compute_dtype, shape, name=name)
        return [dict(sorted(specs.items()))]  # Keras names inputs in this order


def tensor_spec(tensor: Any, name: str | None = None) -> keras.InputSpec:
    """Returns the shape and dtype of a tensor."""
    dtype = keras.backend.standardize_dtype(tensor.dtype)
    return keras.InputSpec(dtype, tuple(tensor.shape), name=name)
