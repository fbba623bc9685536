"""The three Keras models that a captioner is exported as: encoder, keys and values, decoder."""

from __future__ import annotations

from dataclasses import dataclass
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import keras
import numpy as np
from keras import ops

from effcap.decoders.base import Decoder
from effcap.encoders.memory import Memory
from effcap.engines.traced_models import LOGITS, MEMORY, DecoderModel, tensor_spec
from effcap.export import encoder_signature

if TYPE_CHECKING:
    from effcap.captioning import CaptioningModel
    from effcap.samplers import Beam, Greedy

VALUES, MASKS, LOG_PROBS = "values_{:03}", "mask_{:03}", "log_probs"


class MemoryModel(keras.Model):
    """Computes the memory that a decoder attends to.

    Args:
        encoder: encoder of a captioner.

    Call arguments:
        inputs: the encoder's inputs, B rows.

    Returns:
        For each memory "values_000" (B, S, C) and, where some positions are padding, "mask_000"
        (B, S).
    """

    def __init__(self, encoder: keras.layers.Layer):
        super().__init__(name="memory_model")
        self.encoder = encoder
        self._memory = SimpleNamespace(specs=None)  # hidden from Keras, which copies lists
        self.built = True

    def call(self, inputs: dict) -> dict:
        memory = self.encoder(inputs, training=False)
        flat = {}
        for number, level in enumerate(memory):
            flat[VALUES.format(number)] = level.values
            if level.mask is not None:
                flat[MASKS.format(number)] = level.mask
        self._memory.specs = {name: tensor_spec(x, name) for name, x in flat.items()}
        return flat

    @property
    def memory_specs(self) -> dict[str, keras.InputSpec]:
        """Shapes and dtypes of the outputs; known once the model has been called."""
        return self._memory.specs

    def signature(self) -> list[dict[str, keras.InputSpec]]:
        """Returns the inputs for `export`."""
        return [dict(sorted(encoder_signature(self.encoder).items()))]


class KeyValueModel(keras.Model):
    """Computes the keys and values of memory for each layer of a decoder.

    Args:
        decoder: decoder of a captioner.
        memory_specs: of a `MemoryModel`.

    Call arguments:
        inputs: outputs of that model, B rows.

    Returns:
        The tensors of `Decoder.precompute_kv` as "memory_000" and so on.
    """

    def __init__(self, decoder: Decoder, memory_specs: dict[str, keras.InputSpec]):
        super().__init__(name="key_value_model")
        self.decoder = decoder
        self._memory = SimpleNamespace(inputs=memory_specs, specs=None)
        self.built = True

    def call(self, inputs: dict) -> dict:
        numbers = range(sum(name.startswith(VALUES[:-5]) for name in inputs))
        memory = tuple(
            Memory(inputs[VALUES.format(i)], renamed(inputs.get(MASKS.format(i)))) for i in numbers
        )
        memory_kv = self.decoder.precompute_kv(memory)
        self._memory.specs = keras.tree.map_structure(tensor_spec, memory_kv)
        return {MEMORY.format(i): x for i, x in enumerate(keras.tree.flatten(memory_kv))}

    @property
    def key_value_specs(self) -> Any:
        """Shapes and dtypes of `Decoder.precompute_kv`; known once the model has been called."""
        return self._memory.specs

    def signature(self) -> list[dict[str, keras.InputSpec]]:
        """Returns the inputs for `export`."""
        return [dict(sorted(self._memory.inputs.items()))]


def renamed(mask: Any) -> Any:
    """Returns an equal mask (B, S): OpenVINO has one name for an input that is an output, too."""
    return None if mask is None else ops.logical_and(mask, ops.ones_like(mask))


class ScoredDecoderModel(DecoderModel):
    """Decodes tokens as `DecoderModel` does, to log-probabilities of the whole vocabulary.

    Args:
        decoder: decoder of a captioner.
        memory_specs: `key_value_specs` of a `KeyValueModel`.
        output_tokens: tokens that captions are made of. None for all V.
        suppressed: tokens that are never generated, whose probability counts.

    Call arguments:
        inputs: as those of `DecoderModel`.

    Returns:
        "log_probs" (B, T, V), -inf for tokens that are never generated, and the keys and values
        of each block as "next_cache_000" and so on.
    """

    def __init__(
        self,
        decoder: Decoder,
        memory_specs: Any,
        output_tokens: list[int] | None,
        suppressed: set[int],
    ):
        super().__init__(decoder, memory_specs, output_tokens)
        size = decoder.vocabulary_size
        tokens = np.arange(size) if output_tokens is None else np.array(output_tokens)
        numbers = np.full(size, len(tokens), np.int32)  # (V,), of the output tokens
        numbers[tokens] = np.arange(len(tokens))
        numbers[sorted(suppressed)] = len(tokens)
        self._numbers = numbers

    def call(self, inputs: dict) -> dict:
        outputs = super().call(inputs)
        scores = ops.log_softmax(outputs.pop(LOGITS), axis=-1)  # (B,T,N)
        if (self._numbers != np.arange(len(self._numbers))).any():
            nothing = ops.full_like(scores[..., :1], -float("inf"))  # (B,T,1)
            scores = ops.concatenate([scores, nothing], axis=-1)  # (B,T,N+1)
            scores = ops.take(scores, self._numbers, axis=-1)  # (B,T,V)
        return {LOG_PROBS: scores, **outputs}


@dataclass(frozen=True)
class ExportedParts:
    """Holds what the graphs of a captioner are made of.

    Attributes:
        captioner: the captioner.
        encoder, keys_values, decoder: its models.
        sampler: beam search, or greedy decoding, with the limits that the runner has.
        prompt: tokens that all captions continue, the start token first.
    """

    captioner: CaptioningModel
    encoder: MemoryModel
    keys_values: KeyValueModel
    decoder: ScoredDecoderModel
    sampler: Beam | Greedy
    prompt: list[int]
