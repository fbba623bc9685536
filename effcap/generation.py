"""Generation as one compiled function per sampler and batch shape, on any backend."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Any

import keras
import numpy as np
from keras import ops

from effcap.output_vocabulary import CallVocabulary
from effcap.phrases import phrase_tables, phrase_tokens
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
        self.sampler, self._program = sampler, suppress_undecodable(sampler, decoder, tokenizer)
        self._eos = tokenizer.eos_id
        self._output_vocabulary = decoder.output_vocabulary
        vocabulary = call_vocabulary(decoder.output_vocabulary, tokenizer, sampler)
        if vocabulary is not None:
            numbers, num_fixed = vocabulary.numbers, vocabulary.num_fixed
            suppressed = [numbers.get(token, num_fixed) for token in self._program.suppress_tokens]
            suppressed = [number for number in suppressed if number < num_fixed]
            self._program = replace(self._program, suppress_tokens=tuple(suppressed))
            self._eos = numbers[tokenizer.eos_id]
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

    def generate(
        self,
        inputs: Mapping[str, np.ndarray],
        sampler: Sampler | None = None,
        indices: Sequence[int] | None = None,
        prefixes: Sequence[Sequence[int]] | None = None,
    ) -> Hypotheses:
        """Generates captions for one batch.

        Args:
            inputs: as the encoder takes them, B rows.
            sampler: a sampler with the same program as that of this model. Default that itself.
            indices: index of each row, which the random numbers of a seeded sampler depend on.
                Default 0 to B - 1.
            prefixes: tokens that the caption of each row continues, the same number in all rows.
                Default none.
        """
        rows = len(next(iter(inputs.values())))
        sampler = sampler or self.sampler
        values = sampler.inputs(range(rows) if indices is None else indices)
        size = self.decoder.vocabulary_size
        values |= phrase_tables(sampler.include, sampler.exclude, self.tokenizer, size)
        prompt = np.array(
            [[self.tokenizer.bos_id, *prefix] for prefix in prefixes or [()] * rows], np.int32
        )  # (B,1+P)
        model_inputs = {"encoder": dict(inputs), "prompt": prompt, "sampler": values}
        vocabulary = call_vocabulary(
            self._output_vocabulary, self.tokenizer, sampler, prefixes or ()
        )
        if vocabulary is not None:
            tokens = vocabulary.tokens
            for name in {"word_classes", "word_ends"} & set(values):
                values[name] = values[name][tokens]  # (V,) -> (N,)
            numbers = [[vocabulary.numbers[token] for token in row] for row in prompt.tolist()]
            model_inputs["prompt"] = np.array(numbers, np.int32)  # (B,1+P)
            model_inputs |= {"tokens": tokens, "can_output": vocabulary.can_output}
        try:
            with _weights_lock, intended_retracing():
                outputs = self.predict_on_batch(model_inputs)
        except Exception as error:
            raise original_error(error) from None
        return Hypotheses(**outputs)


class GenerationCache:
    """The generation models compiled last, by sampler program, input shape and prefix length.

    It is not a Keras container, so that a captioner does not track the models as layers.

    Args:
        encoder, decoder: as in `GenerationModel`.
    """

    def __init__(self, encoder: keras.layers.Layer, decoder: Decoder) -> None:
        self._decoder = decoder
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
        prefixes: Sequence[Sequence[int]] | None = None,
    ) -> Hypotheses:
        """Generates captions, padding the batch to an already compiled size if there is one.

        Rows with prefixes of different lengths are decoded one length after the other, so that no
        prefix is padded.

        Args:
            inputs: as the encoder takes them, NumPy arrays of B rows.
            tokenizer: as in `GenerationModel`.
            sampler: sampler that generates the captions.
            batch_size: maximum batch size to pad to.
            indices: as in `GenerationModel.generate`.
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
            hypotheses = self._generate_group(
                {
                    name: array if len(groups) == 1 else array[group]
                    for name, array in inputs.items()
                },
                tokenizer,
                sampler,
                range(smallest, max(smallest, batch_size) + 1),
                [indices[row] for row in group],
                [prefixes[int(row)] for row in group],
            )
            parts.append(hypotheses)
        order = np.argsort(np.concatenate(groups))  # (B,)
        return Hypotheses(*(np.concatenate(field)[order] for field in zip(*parts, strict=True)))

    def _generate_group(
        self,
        inputs: Mapping[str, np.ndarray],
        tokenizer: Tokenizer,
        sampler: Sampler,
        sizes: range,
        indices: list[int],
        prefixes: list[Sequence[int]],
    ) -> Hypotheses:
        """Generates captions of rows whose prefixes have the same length; see `generate`.

        Args:
            sizes: batch sizes to pad to; the first is compiled if none of them is.
        """
        rows = len(indices)
        shapes = tuple((name, value.shape[1:], str(value.dtype)) for name, value in inputs.items())
        output = self._decoder.output_vocabulary
        vocabulary = call_vocabulary(output, tokenizer, sampler, prefixes)
        vocabulary_key = None if vocabulary is None else (output, len(vocabulary))
        prefix_length = len(prefixes[0])
        program = (sampler.program(), shapes, prefix_length, tokenizer.fingerprint, vocabulary_key)
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
        padded = {name: pad_rows(value, size) for name, value in inputs.items()}
        missing = size - rows
        indices, prefixes = indices + indices[-1:] * missing, prefixes + prefixes[-1:] * missing
        hypotheses = model.generate(padded, sampler, indices, prefixes)
        return Hypotheses(*(field[:rows] for field in hypotheses))


def suppress_undecodable(sampler: Sampler, decoder: Decoder, tokenizer: Tokenizer) -> Sampler:
    """Returns the program of a sampler that generates only tokens that are part of captions.

    A decoder may have more tokens than the tokenizer can decode, and a start token that is appended
    to the vocabulary, as BLIP's, is part of no caption. Their probability counts in the scores, as
    in transformers.
    """
    suppressed = {*sampler.suppress_tokens}
    suppressed |= set(range(tokenizer.vocabulary_size, decoder.vocabulary_size))
    start = tokenizer.bos_id
    if start != tokenizer.eos_id and start >= tokenizer.base_vocabulary_size:
        suppressed.add(start)
    return replace(sampler, suppress_tokens=tuple(sorted(suppressed))).program()


def call_vocabulary(
    output_vocabulary: str | None,
    tokenizer: Tokenizer,
    sampler: Sampler,
    prefixes: Sequence[Sequence[int]] = (),
) -> CallVocabulary | None:
    """Returns the tokens of a call for a decoder with an output vocabulary; otherwise None.

    Args:
        output_vocabulary: that of the decoder.
        tokenizer: tokenizer of the captioner.
        sampler: sampler of the call, whose words to include can be generated, too.
        prefixes: tokens that captions continue.
    """
    if output_vocabulary is None:
        return None
    added = phrase_tokens(sampler.include, tokenizer) - {*sampler.suppress_tokens}
    context = {tokenizer.bos_id}.union(*map(set, prefixes))
    return CallVocabulary.create(output_vocabulary, tokenizer.eos_id, added, context)


def check_sampler(
    sampler: Sampler, decoder: Decoder, tokenizer: Tokenizer, prefix_length: int = 0
) -> None:
    """Checks that a decoder can generate what a sampler asks for.

    Args:
        sampler: sampler to check.
        decoder: decoder of a captioner.
        tokenizer: tokenizer of the captioner.
        prefix_length: number of tokens of a prefix text. Default 0.

    Raises:
        ValueError: the prefix, `max_new_tokens` or a suppressed token is too large.
    """
    longest = decoder.max_text_length
    if prefix_length >= longest:
        raise ValueError(
            f"Expected a prefix of at most {longest - 1} tokens, which leaves the decoder a "
            f"position for the caption. Received: {prefix_length} tokens"
        )
    if prefix_length + sampler.max_new_tokens > longest:
        after = f" after a prefix of {prefix_length} tokens" if prefix_length else ""
        raise ValueError(
            f"Expected max_new_tokens of at most {longest - prefix_length}, as many as the "
            f"decoder has positions for{after}. Received: {sampler.max_new_tokens}"
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
