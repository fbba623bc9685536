"""Generation as one compiled function per sampler and batch shape, on any backend."""

from __future__ import annotations

import dataclasses
from functools import partial
from typing import TYPE_CHECKING, Any

import keras
import numpy as np
from keras import ops

from effcap.samplers import Hypotheses, Nucleus, Sampler

if TYPE_CHECKING:
    from effcap.decoders.base import Decoder
    from effcap.tokenizers import Tokenizer


class GenerationModel(keras.Model):
    """Encoder, keys and values of memory, and the sampler's whole loop in one compiled call.

    This is a model because Keras compiles a model's predict step on every backend.

    Args:
        encoder: encoder of a captioner.
        decoder: decoder of a captioner.
        tokenizer: defines the start and end tokens, and which tokens can be generated.
        sampler: sampler that generates the captions.

    Call arguments:
        inputs: as the encoder takes them, B rows.

    Returns:
        `{"tokens", "scores", "lengths"}`, as in `Hypotheses`.

    Attributes:
        seeds: generator of the random numbers of a `Nucleus` sampler without a seed of its own.
    """

    def __init__(
        self,
        encoder: keras.layers.Layer,
        decoder: Decoder,
        tokenizer: Tokenizer,
        sampler: Sampler,
    ):
        super().__init__(name="generation_model")
        self.encoder, self.decoder, self.tokenizer = encoder, decoder, tokenizer
        self.seeds = keras.random.SeedGenerator(name="seeds")
        if isinstance(sampler, Nucleus) and sampler.seed is None:
            sampler = dataclasses.replace(sampler, seed=self.seeds)
        self.sampler = sampler
        # On a CPU, XLA's decoding loop is slower and takes far longer to compile.
        self.compile(jit_compile=keras.backend.backend() == "jax")
        self.built = True

    def call(self, inputs: dict) -> dict:
        memory_kv = self.decoder.precompute_kv(self.encoder(inputs, training=False))
        images = next(iter(inputs.values())).shape[0]
        prompt = ops.full((images, 1), self.tokenizer.bos_id, dtype="int32")  # (B,1)
        # The last token is never fed back, so the start token needs no further position.
        cache = self.decoder.empty_cache(images, self.sampler.max_new_tokens)

        def step(tokens: Any, position: Any, state: Any) -> tuple[Any, Any]:
            logits, state = self.decoder.step(tokens, position, state, memory_kv)
            # A decoder may have more tokens than the tokenizer can decode.
            return logits[:, : self.tokenizer.vocabulary_size], state  # (R,V)

        return self.sampler(step, prompt, cache, eos=self.tokenizer.eos_id)._asdict()


class GenerationCache:
    """The generation models compiled so far, by sampler and input shape.

    It is not a Keras container, so that a captioner does not track the models as layers.

    Args:
        encoder, decoder: as in `GenerationModel`.
    """

    def __init__(self, encoder: keras.layers.Layer, decoder: Decoder) -> None:
        self._create_model = partial(GenerationModel, encoder, decoder)
        self._models: dict[tuple, GenerationModel] = {}

    def __len__(self) -> int:
        return len(self._models)

    def clear(self) -> None:
        """Removes all models; call it when the captioner has changed."""
        self._models.clear()

    def run(
        self, inputs: dict, tokenizer: Tokenizer, sampler: Sampler, batch_size: int
    ) -> Hypotheses:
        """Generates captions, padding the batch to an already compiled size if there is one.

        Args:
            inputs: as the encoder takes them, NumPy arrays of B rows.
            tokenizer: as in `GenerationModel`.
            sampler: sampler that generates the captions.
            batch_size: maximum batch size to pad to.
        """
        rows = len(next(iter(inputs.values())))
        shapes = tuple((name, value.shape[1:], str(value.dtype)) for name, value in inputs.items())
        sizes = [
            key[-1]
            for key in self._models
            if key[:3] == (sampler, shapes, tokenizer.fingerprint) and rows <= key[-1] <= batch_size
        ]
        size = min(sizes, default=rows)
        key = (sampler, shapes, tokenizer.fingerprint, size)
        if key not in self._models:
            self._models[key] = self._create_model(tokenizer, sampler)
        padded = {name: pad_rows(value, size) for name, value in inputs.items()}
        outputs = self._models[key].predict_on_batch(padded)
        return Hypotheses(**{name: value[:rows] for name, value in outputs.items()})


def pad_rows(array: np.ndarray, rows: int) -> np.ndarray:
    """Repeats the last row of `array` until it has `rows` rows."""
    missing = rows - len(array)
    return np.concatenate([array, np.repeat(array[-1:], missing, axis=0)]) if missing else array
