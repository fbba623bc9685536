"""Photos to tokens as one compiled program per sampler and batch shape, on any backend."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING

import keras
import numpy as np
from keras import ops

from effcap.samplers import Nucleus, Samples

if TYPE_CHECKING:
    from effcap.captioner import Captioner


class CaptionProgram(keras.Model):
    """Encoder, projection of memory and the sampler's whole loop in one compiled call.

    Keras compiles a model's predict step for whatever backend it runs on, so this one is a model:
    inputs as in the encoder, B rows; output `{"tokens", "scores", "lengths"}` as in `Samples`.
    """

    def __init__(self, captioner: Captioner, sampler):
        super().__init__(name="caption_program")
        self.captioner = captioner
        self.seeds = keras.random.SeedGenerator(name="seeds")
        if isinstance(sampler, Nucleus) and sampler.seed is None:
            sampler = dataclasses.replace(sampler, seed=self.seeds)
        self.sampler = sampler
        # XLA's decoding loop is the slower one on a CPU, and takes far longer to compile.
        self.compile(jit_compile=keras.backend.backend() == "jax")
        self.built = True

    def call(self, inputs):
        decoder, tokenizer = self.captioner.decoder, self.captioner.tokenizer
        memory = self.captioner.encoder(inputs, training=False)
        contexts = decoder.project(memory)
        images = next(iter(inputs.values())).shape[0]
        prompt = ops.full((images, 1), tokenizer.bos_id, dtype="int32")  # (B,1)
        # The last token is never fed, so the start token makes no position more.
        cache = decoder.empty_cache(images, self.sampler.max_tokens)

        def step(tokens, position, state):
            logits, state = decoder.step(tokens, position, state, contexts)
            # A decoder may have more tokens than the tokenizer can spell.
            return logits[:, : tokenizer.vocabulary_size], state  # (R,V)

        samples = self.sampler(step, prompt, cache, eos=tokenizer.eos_id)
        return samples._asdict()


class Programs:
    """The programs compiled so far, by sampler and shape; the smallest that holds a batch is used.

    Not a Keras container, so that the captioner does not take its programs for layers.
    """

    def __init__(self) -> None:
        self._programs: dict[tuple, CaptionProgram] = {}

    def __len__(self) -> int:
        return len(self._programs)

    def clear(self) -> None:
        """Forgets all programs, as must be done when the model itself has changed."""
        self._programs.clear()

    def run(self, captioner: Captioner, inputs: dict, sampler, batch_size: int) -> Samples:
        """Samples for inputs of up to `batch_size` rows, padded to the size compiled for."""
        rows = len(next(iter(inputs.values())))
        shape = tuple((name, value.shape[1:], str(value.dtype)) for name, value in inputs.items())
        fitting = [
            key[-1]
            for key in self._programs
            if key[:2] == (sampler, shape) and rows <= key[-1] <= batch_size
        ]
        size = min(fitting, default=rows)
        key = (sampler, shape, size)
        if key not in self._programs:
            self._programs[key] = CaptionProgram(captioner, sampler)
        padded = {name: pad_rows(value, size) for name, value in inputs.items()}
        outputs = self._programs[key].predict_on_batch(padded)
        return Samples(**{name: value[:rows] for name, value in outputs.items()})


def pad_rows(array: np.ndarray, rows: int) -> np.ndarray:
    """`array` with its last row repeated until it has `rows` rows."""
    missing = rows - len(array)
    return np.concatenate([array, np.repeat(array[-1:], missing, axis=0)]) if missing else array
