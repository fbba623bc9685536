"""Generation as one compiled function per sampler and batch shape, on any backend."""

from __future__ import annotations

import threading
from abc import ABC, abstractmethod
from collections import OrderedDict
from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from functools import partial
from typing import TYPE_CHECKING, Any

import keras
import numpy as np
from keras import ops

from effcap.generation_call import (
    Call,
    Rows,
    TextDecoder,
    call_vocabulary,
    check_sampler,
    sampler_program,
)
from effcap.samplers import Hypotheses, Sampler
from effcap.utils.retracing import intended_retracing

if TYPE_CHECKING:
    from effcap.decoders.base import Decoder
    from effcap.tokenizers import Tokenizer

MAX_MODELS = 16  # compiled models that a captioner keeps; each takes about 30 MB

# On JAX, Keras hands the weights over to the compiled function while it runs.
_weights_lock = threading.Lock() if keras.backend.backend() == "jax" else nullcontext()


class GenerationModel(keras.Model):
    """Encoder, keys and values of memory, and the sampler's whole loop in one compiled call.

    This is a model because Keras compiles a model's predict step on every backend.

    Args:
        encoder: encoder of a captioner.
        decoder: decoder of a captioner.
        tokenizer: defines the start and end tokens, and which tokens can be generated.
        sampler: sampler that generates the captions.

    Call arguments:
        inputs: "encoder", inputs as the encoder takes them, B rows; "prompt" (B, 1 + P) int32, the
            start token and the tokens of a prefix; and "sampler", as from `Sampler.inputs`. With an
            output vocabulary also "tokens" (N,) and "can_output" (N,), as in `CallVocabulary`, by
            whose numbers the prompt and the tables of the sampler are given.

    Returns:
        `{"tokens", "scores", "lengths", "token_scores"}`, as in `Hypotheses`.

    Raises:
        ValueError: the decoder is too short for the sampler, or has no such tokens.
    """

    def __init__(
        self,
        encoder: keras.layers.Layer,
        decoder: Decoder,
        tokenizer: Tokenizer,
        sampler: Sampler,
    ):
        # Layers compute in their own precision; scores and random numbers stay float32.
        super().__init__(name="generation_model", dtype="float32")
        check_sampler(sampler, decoder, tokenizer)
        self.encoder, self.decoder, self.tokenizer = encoder, decoder, tokenizer
        self.sampler = sampler
        self._program, self._eos = sampler_program(sampler, decoder, tokenizer)
        # On a CPU, XLA's decoding loop is slower and takes far longer to compile.
        self.compile(jit_compile=keras.backend.backend() == "jax")
        self.built = True

    def call(self, inputs: dict) -> dict:
        memory_kv = self.decoder.precompute_kv(self.encoder(inputs["encoder"], training=False))
        tokens = inputs.get("tokens")  # (N,)
        head = self.decoder.output_head(tokens)
        if tokens is not None:
            head = head.forbid(ops.logical_not(inputs["can_output"]))
        prompt = inputs["prompt"]  # (B,1+P)
        images, prefix_length = prompt.shape[0], prompt.shape[1] - 1

        def ids(numbers: Any) -> Any:
            return numbers if tokens is None else ops.take(tokens, numbers, axis=0)

        # The last token is never fed back, so the start token needs no further position.
        cache = self.decoder.empty_cache(images, prefix_length + self._program.max_new_tokens)
        if prefix_length:
            cache = self.decoder.prefill(ids(prompt[:, :-1]), cache, memory_kv)

        def step(token: Any, position: Any, state: Any) -> tuple[Any, Any]:
            return self.decoder.step(ids(token), position, state, memory_kv, head)

        hypotheses = self._program(step, prompt, cache, eos=self._eos, inputs=inputs["sampler"])
        return hypotheses._replace(tokens=ids(hypotheses.tokens))._asdict()

    def generate(self, rows: Rows, sampler: Sampler | None = None) -> Hypotheses:
        """Generates captions for one batch.

        Args:
            rows: the rows of the batch.
            sampler: a sampler with the same program as that of this model. Default that itself.
        """
        call = Call.create(sampler or self.sampler, self.decoder, self.tokenizer, rows)
        model_inputs = {"encoder": dict(rows.inputs), "prompt": call.prompt}
        model_inputs["sampler"] = call.values
        if call.vocabulary is not None:
            tokens, can_output = call.vocabulary.tokens, call.vocabulary.can_output
            model_inputs |= {"tokens": tokens, "can_output": can_output}
        try:
            with _weights_lock, intended_retracing():
                outputs = self.predict_on_batch(model_inputs)
        except Exception as error:
            raise original_error(error) from None
        return Hypotheses(**outputs)


class Generation(ABC):
    """Generates captions of batches whose rows may continue prefixes of different lengths.

    Args:
        decoder: decoder of a captioner.
    """

    def __init__(self, decoder: TextDecoder) -> None:
        self._decoder = decoder

    def generate(
        self,
        inputs: Mapping[str, np.ndarray],
        tokenizer: Tokenizer,
        sampler: Sampler,
        batch_size: int,
        indices: Sequence[int] | None = None,
        prefixes: Sequence[Sequence[int]] | None = None,
    ) -> Hypotheses:
        """Generates captions.

        Rows with prefixes of different lengths are decoded one length after the other, so that no
        prefix is padded.

        Args:
            inputs: as the encoder takes them, NumPy arrays of B rows.
            tokenizer: as in `GenerationModel`.
            sampler: sampler that generates the captions.
            batch_size: maximum batch size to pad to, if such a size is already compiled.
            indices: as in `Rows`. Default 0 to B - 1.
            prefixes: tokens that the caption of each row continues. Default none.

        Raises:
            ValueError: the decoder is too short for the prefixes and the sampler, or has no such
                tokens.
        """
        rows = len(next(iter(inputs.values())))
        indices = list(range(rows) if indices is None else indices)
        prefixes = [()] * rows if prefixes is None else prefixes
        lengths = np.array([len(prefix) for prefix in prefixes])  # (B,)
        check_sampler(sampler, self._decoder, tokenizer, int(lengths.max()))
        groups = [np.flatnonzero(lengths == length) for length in np.unique(lengths)]
        parts = []
        for group in groups:
            smallest = len(group)
            if len(groups) > 1:  # groups of any size: two sizes are compiled for each length
                quarter = -(-batch_size // 4)
                smallest = quarter if smallest <= quarter else max(smallest, batch_size)
            chosen = Rows(
                {
                    name: array if len(groups) == 1 else array[group]
                    for name, array in inputs.items()
                },
                [indices[row] for row in group],
                [prefixes[int(row)] for row in group],
            )
            sizes = range(smallest, max(smallest, batch_size) + 1)
            parts.append(self._generate_group(chosen, tokenizer, sampler, sizes))
        order = np.argsort(np.concatenate(groups))  # (B,)
        return Hypotheses(*(np.concatenate(field)[order] for field in zip(*parts, strict=True)))

    @abstractmethod
    def _generate_group(
        self, rows: Rows, tokenizer: Tokenizer, sampler: Sampler, sizes: range
    ) -> Hypotheses:
        """Generates captions of rows whose prefixes have the same length; see `generate`.

        Args:
            sizes: batch sizes to pad to; the first is compiled if none of them is.
        """


class GenerationCache(Generation):
    """The generation models compiled last, by sampler program, input shape and prefix length.

    It is not a Keras container, so that a captioner does not track the models as layers.

    Args:
        encoder, decoder: as in `GenerationModel`.
    """

    def __init__(self, encoder: keras.layers.Layer, decoder: Decoder) -> None:
        super().__init__(decoder)
        self._create_model = partial(GenerationModel, encoder, decoder)
        self._models: OrderedDict[tuple, GenerationModel] = OrderedDict()
        self._lock = threading.Lock()

    def __len__(self) -> int:
        return len(self._models)

    def clear(self) -> None:
        """Removes all models; call it when the captioner has changed."""
        with self._lock:
            self._models.clear()

    def _generate_group(
        self, rows: Rows, tokenizer: Tokenizer, sampler: Sampler, sizes: range
    ) -> Hypotheses:
        inputs = rows.inputs.items()
        shapes = tuple((name, value.shape[1:], str(value.dtype)) for name, value in inputs)
        output = self._decoder.output_vocabulary
        vocabulary = call_vocabulary(output, tokenizer, sampler, rows.prefixes)
        vocabulary_key = None if vocabulary is None else (output, len(vocabulary))
        of_texts = (rows.prefix_length, tokenizer.fingerprint, vocabulary_key)
        program = (sampler.program(), shapes, *of_texts)
        with self._lock:
            compiled = {size for *key, size in self._models if tuple(key) == program}
            size = next((size for size in sizes if size in compiled), sizes[0])
            key = (*program, size)
            if key not in self._models:
                self._models[key] = self._create_model(tokenizer, sampler)
            self._models.move_to_end(key)
            while len(self._models) > MAX_MODELS:
                self._models.popitem(last=False)
            model = self._models[key]
        hypotheses = model.generate(rows.pad(size), sampler)
        return Hypotheses(*(field[: len(rows)] for field in hypotheses))


def original_error(error: Exception) -> BaseException:
    """Returns the error that Keras has wrapped in descriptions of layers and their arguments."""
    original: BaseException = error
    while str(original).startswith("Exception encountered when calling") and original.__context__:
        original = original.__context__
    return original
