"""Generation around an engine: the same samplers, on NumPy arrays."""

from __future__ import annotations

import threading
from collections.abc import Mapping
from typing import Any, Protocol

import numpy as np

from effcap.generation import Generation
from effcap.generation_call import Call, Rows, TextDecoder, sampler_program
from effcap.output_vocabulary import CallVocabulary
from effcap.samplers import Hypotheses, Sampler
from effcap.samplers.backend import numpy_arrays
from effcap.tokenizers import Tokenizer


class Models(Protocol):
    """The encoder and the decoder of a captioner in an engine, with the state of one batch."""

    def start(self, inputs: Mapping[str, np.ndarray]) -> None:
        """Computes the memory of a batch, and empties the cache."""

    def extend(self, tokens: np.ndarray, positions: np.ndarray, mask: np.ndarray) -> np.ndarray:
        """Returns the logits (B, T, V) of tokens (B, T), as `Decoder.extend` does."""


class CompiledGeneration(Generation):
    """Generates captions with the models of an engine.

    Args:
        models: models of the engine.
        decoder: describes the decoder.
    """

    def __init__(self, models: Models, decoder: TextDecoder) -> None:
        super().__init__(decoder)
        self._models = models
        self._lock = threading.Lock()

    def _generate_group(
        self, rows: Rows, tokenizer: Tokenizer, sampler: Sampler, sizes: range
    ) -> Hypotheses:
        call = Call.create(sampler, self._decoder, tokenizer, rows)
        program, eos = sampler_program(sampler, self._decoder, tokenizer)
        self._check_words(call.vocabulary)
        with self._lock, numpy_arrays():
            self._models.start(rows.inputs)
            beams = BeamDecoder(self._models, call)
            state = beams.empty_state(sampler.max_new_tokens)
            hypotheses = program(beams.step, call.prompt, state, eos=eos, inputs=call.values)
            return hypotheses._replace(tokens=beams.ids(hypotheses.tokens))

    @staticmethod
    def _check_words(vocabulary: CallVocabulary | None) -> None:
        """Raises a `ValueError` for words to include that are made of other tokens."""
        if vocabulary is not None and vocabulary.can_output[vocabulary.num_fixed :].any():
            raise ValueError(
                "The words to include have tokens outside of the output vocabulary, which a "
                "compiled captioner cannot generate: use the Keras captioner, or compile it after "
                "restrict_vocabulary(None)"
            )


class BeamDecoder:
    """Decodes the beams of a batch without reordering their cache.

    The K tokens of each image in one step are appended to the cache of the image. A beam attends
    to the tokens that it consists of: which of the K that is, of each step, is the only state that
    a search reorders.

    Args:
        models: models of an engine, whose memory has been computed.
        call: inputs of the sampler, with the prompts of B images.
    """

    def __init__(self, models: Models, call: Call) -> None:
        self._models, self._vocabulary = models, call.vocabulary
        prompt = self.ids(call.prompt)  # (B,1+P)
        self._images, self._prefix_length = len(prompt), prompt.shape[1] - 1  # B, P
        if self._prefix_length:
            positions = np.arange(self._prefix_length, dtype=np.int32)  # (P,)
            mask = positions[:, None] >= positions  # (P,P)
            mask = np.broadcast_to(mask, (len(prompt), *mask.shape))  # (B,P,P)
            models.extend(prompt[:, :-1], positions, mask)

    def ids(self, numbers: np.ndarray) -> np.ndarray:
        """Returns the ids of the tokenizer for the numbers of a call."""
        return numbers if self._vocabulary is None else self._vocabulary.tokens[numbers]

    def empty_state(self, steps: int) -> dict[str, np.ndarray]:
        """Returns the state of one beam of each image: `{"origins": (B, steps)}`."""
        return {"origins": np.zeros((self._images, steps), np.int32)}

    def step(
        self, tokens: np.ndarray, position: Any, state: dict[str, np.ndarray]
    ) -> tuple[np.ndarray, dict[str, np.ndarray]]:
        """Decodes one position of each beam; see `Decoder.step`."""
        images, rows = self._images, len(tokens)
        beams, prefix = rows // images, self._prefix_length
        length = int(position) - prefix  # earlier steps
        numbers = np.arange(beams, dtype=np.int32)  # (K,)
        origins = state["origins"].copy()  # (R,steps)
        origins[:, length] = np.tile(numbers, images)
        attended = origins[:, : length + 1, None] == numbers  # (R,n,K)
        mask = np.ones((images, beams, prefix + (length + 1) * beams), bool)  # (B,K,P+n*K)
        mask[:, :, prefix:] = attended.reshape(images, beams, -1)  # (R,n,K) -> (B,K,n*K)
        positions = np.full(beams, position, np.int32)  # (K,)
        ids = self.ids(tokens).reshape(images, beams)  # (R,) -> (B,K)
        logits = self._models.extend(ids, positions, mask)  # (B,K,V)
        logits = logits.reshape(rows, -1)  # (B,K,V) -> (R,V)
        if self._vocabulary is not None:  # the tokens of the prefix cannot be generated
            missing = len(self._vocabulary) - logits.shape[1]
            logits = np.pad(logits, ((0, 0), (0, missing)), constant_values=-np.inf)  # (R,N)
        return logits, {"origins": origins}
