"""Generation as one compiled function per sampler and batch shape, on any backend."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from functools import partial
from typing import TYPE_CHECKING, Any

import keras
import numpy as np
from keras import ops

from effcap.samplers import Hypotheses, Sampler

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
        inputs: as the encoder takes them, B rows.
        sampler_inputs: as from `Sampler.inputs`.

    Returns:
        `{"tokens", "scores", "lengths"}`, as in `Hypotheses`.

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
        super().__init__(name="generation_model")
        check_sampler(sampler, decoder, tokenizer)
        self.encoder, self.decoder, self.tokenizer = encoder, decoder, tokenizer
        self.sampler, self._program = sampler, sampler.program()
        # On a CPU, XLA's decoding loop is slower and takes far longer to compile.
        self.compile(jit_compile=keras.backend.backend() == "jax")
        self.built = True

    def call(self, inputs: dict) -> dict:
        inputs, sampler_inputs = inputs["encoder"], inputs["sampler"]
        memory_kv = self.decoder.precompute_kv(self.encoder(inputs, training=False))
        images = next(iter(inputs.values())).shape[0]
        prompt = ops.full((images, 1), self.tokenizer.bos_id, dtype="int32")  # (B,1)
        # The last token is never fed back, so the start token needs no further position.
        cache = self.decoder.empty_cache(images, self._program.max_new_tokens)

        def step(tokens: Any, position: Any, state: Any) -> tuple[Any, Any]:
            logits, state = self.decoder.step(tokens, position, state, memory_kv)
            # A decoder may have more tokens than the tokenizer can decode.
            logits = logits[:, : self.tokenizer.vocabulary_size]  # (R,V)
            return forbid_start(logits, self.tokenizer), state

        eos = self.tokenizer.eos_id
        return self._program(step, prompt, cache, eos=eos, inputs=sampler_inputs)._asdict()

    def generate(
        self,
        inputs: Mapping[str, np.ndarray],
        sampler: Sampler | None = None,
        indices: Sequence[int] | None = None,
    ) -> Hypotheses:
        """Generates captions for one batch.

        Args:
            inputs: as the encoder takes them, B rows.
            sampler: a sampler with the same program as that of this model. Default that itself.
            indices: index of each row, which the random numbers of a seeded sampler depend on.
                Default 0 to B - 1.
        """
        rows = len(next(iter(inputs.values())))
        values = (sampler or self.sampler).inputs(range(rows) if indices is None else indices)
        try:
            with _weights_lock:
                outputs = self.predict_on_batch({"encoder": dict(inputs), "sampler": values})
        except Exception as error:
            raise original_error(error) from None
        return Hypotheses(**outputs)


class GenerationCache:
    """The generation models compiled last, by sampler program and input shape.

    It is not a Keras container, so that a captioner does not track the models as layers.

    Args:
        encoder, decoder: as in `GenerationModel`.
    """

    def __init__(self, encoder: keras.layers.Layer, decoder: Decoder) -> None:
        self._create_model = partial(GenerationModel, encoder, decoder)
        self._models: OrderedDict[tuple, GenerationModel] = OrderedDict()
        self._lock = threading.Lock()

    def __len__(self) -> int:
        return len(self._models)

    def clear(self) -> None:
        """Removes all models; call it when the captioner has changed."""
        with self._lock:
            self._models.clear()

    def generate(
        self,
        inputs: Mapping[str, np.ndarray],
        tokenizer: Tokenizer,
        sampler: Sampler,
        batch_size: int,
        indices: Sequence[int] | None = None,
    ) -> Hypotheses:
        """Generates captions, padding the batch to an already compiled size if there is one.

        Args:
            inputs: as the encoder takes them, NumPy arrays of B rows.
            tokenizer: as in `GenerationModel`.
            sampler: sampler that generates the captions.
            batch_size: maximum batch size to pad to.
            indices: as in `GenerationModel.generate`.
        """
        rows = len(next(iter(inputs.values())))
        indices = list(range(rows) if indices is None else indices)
        shapes = tuple((name, value.shape[1:], str(value.dtype)) for name, value in inputs.items())
        program = (sampler.program(), shapes, tokenizer.fingerprint)
        with self._lock:
            sizes = [size for *key, size in self._models if tuple(key) == program]
            size = min((size for size in sizes if rows <= size <= batch_size), default=rows)
            key = (*program, size)
            if key not in self._models:
                self._models[key] = self._create_model(tokenizer, sampler)
            self._models.move_to_end(key)
            while len(self._models) > MAX_MODELS:
                self._models.popitem(last=False)
            model = self._models[key]
        padded = {name: pad_rows(value, size) for name, value in inputs.items()}
        indices += indices[-1:] * (size - rows)
        hypotheses = model.generate(padded, sampler, indices)
        return Hypotheses(*(field[:rows] for field in hypotheses))


def forbid_start(logits: Any, tokenizer: Tokenizer) -> Any:
    """Returns logits (R, V) with -inf for a start token that is appended to the vocabulary.

    Such a token, as BLIP's, is part of no caption.
    """
    start = tokenizer.bos_id
    if start == tokenizer.eos_id or start < tokenizer.base_vocabulary_size:
        return logits
    is_start = np.arange(logits.shape[-1]) == start  # (V,)
    return ops.where(is_start, ops.cast(float("-inf"), logits.dtype), logits)  # (R,V)


def check_sampler(sampler: Sampler, decoder: Decoder, tokenizer: Tokenizer) -> None:
    """Checks that a decoder can generate what a sampler asks for.

    Raises:
        ValueError: `max_new_tokens` or a suppressed token is too large.
    """
    if sampler.max_new_tokens > decoder.max_text_length:
        raise ValueError(
            f"Expected max_new_tokens of at most {decoder.max_text_length}, as many as the "
            f"decoder has positions for. Received: {sampler.max_new_tokens}"
        )
    if sampler.suppress_tokens and sampler.suppress_tokens[-1] >= tokenizer.vocabulary_size:
        raise ValueError(
            "Expected suppress_tokens below the tokenizer's vocabulary_size of "
            f"{tokenizer.vocabulary_size}. Received: {sampler.suppress_tokens}"
        )


def original_error(error: Exception) -> BaseException:
    """Returns the error that Keras has wrapped in descriptions of layers and their arguments."""
    original: BaseException = error
    while str(original).startswith("Exception encountered when calling") and original.__context__:
        original = original.__context__
    return original


def pad_rows(array: np.ndarray, rows: int) -> np.ndarray:
    """Repeats the last row of `array` until it has `rows` rows."""
    missing = rows - len(array)
    return np.concatenate([array, np.repeat(array[-1:], missing, axis=0)]) if missing else array
