"""The inputs of one call of a sampler, whatever computes the decoder: program, prompt, tables."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

from effcap.output_vocabulary import CallVocabulary
from effcap.phrases import phrase_tables, phrase_tokens
from effcap.samplers import Sampler

if TYPE_CHECKING:
    from effcap.tokenizers import Tokenizer


class TextDecoder(Protocol):
    """Describes what generation asks of a decoder, whatever computes it; see `Decoder`."""

    @property
    def vocabulary_size(self) -> int: ...

    @property
    def max_text_length(self) -> int: ...

    @property
    def output_vocabulary(self) -> str | None: ...


def pad_rows(array: np.ndarray, rows: int) -> np.ndarray:
    """Repeats the last row of `array` until it has `rows` rows."""
    missing = rows - len(array)
    return np.concatenate([array, np.repeat(array[-1:], missing, axis=0)]) if missing else array


@dataclass(frozen=True)
class Rows:
    """Rows of a batch that are decoded together.

    Attributes:
        inputs: as the encoder takes them, NumPy arrays of B rows.
        indices: index of each row, which the random numbers of a seeded sampler depend on.
        prefixes: tokens that the caption of each row continues, the same number in all rows.
    """

    inputs: Mapping[str, np.ndarray]
    indices: list[int]
    prefixes: list[Sequence[int]]

    def __len__(self) -> int:
        return len(self.indices)

    @property
    def prefix_length(self) -> int:
        return len(self.prefixes[0])

    def pad(self, size: int) -> Rows:
        """Repeats the last row until there are `size` rows."""
        missing = size - len(self)
        inputs = {name: pad_rows(array, size) for name, array in self.inputs.items()}
        indices = self.indices + self.indices[-1:] * missing
        return Rows(inputs, indices, self.prefixes + self.prefixes[-1:] * missing)


@dataclass(frozen=True)
class Call:
    """The inputs of one call of a sampler.

    Attributes:
        prompt: int32 (B, 1 + P), the start token and the tokens of a prefix.
        values: values and tables of the sampler by name.
        vocabulary: tokens of the call, by whose numbers prompt and tables are given; None for
            ids of the tokenizer.
    """

    prompt: np.ndarray
    values: dict[str, Any]
    vocabulary: CallVocabulary | None

    @classmethod
    def create(
        cls,
        sampler: Sampler,
        decoder: TextDecoder,
        tokenizer: Tokenizer,
        rows: Rows,
    ) -> Call:
        """Returns the inputs of a call for B rows.

        Args:
            sampler: sampler that generates the captions.
            decoder, tokenizer: those of the captioner.
            rows: the rows.
        """
        values = sampler.inputs(rows.indices)
        size = decoder.vocabulary_size
        values |= phrase_tables(sampler.include, sampler.exclude, tokenizer, size)
        prompt = [[tokenizer.bos_id, *prefix] for prefix in rows.prefixes]
        vocabulary = call_vocabulary(decoder.output_vocabulary, tokenizer, sampler, rows.prefixes)
        if vocabulary is not None:
            for name in {"word_classes", "word_ends"} & set(values):
                values[name] = values[name][vocabulary.tokens]  # (V,) -> (N,)
            prompt = [[vocabulary.numbers[token] for token in row] for row in prompt]
        return cls(np.array(prompt, np.int32), values, vocabulary)


def sampler_program(
    sampler: Sampler, decoder: TextDecoder, tokenizer: Tokenizer
) -> tuple[Sampler, int]:
    """Returns the program of a sampler and its end token, in the numbers of a `Call`."""
    program = suppress_undecodable(sampler, decoder, tokenizer)
    vocabulary = call_vocabulary(decoder.output_vocabulary, tokenizer, sampler)
    if vocabulary is None:
        return program, tokenizer.eos_id
    numbers, num_fixed = vocabulary.numbers, vocabulary.num_fixed
    suppressed = [numbers.get(token, num_fixed) for token in program.suppress_tokens]
    suppressed = [number for number in suppressed if number < num_fixed]
    return replace(program, suppress_tokens=tuple(suppressed)), numbers[tokenizer.eos_id]


def suppress_undecodable(sampler: Sampler, decoder: TextDecoder, tokenizer: Tokenizer) -> Sampler:
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
    sampler: Sampler, decoder: TextDecoder, tokenizer: Tokenizer, prefix_length: int = 0
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
