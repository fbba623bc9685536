"""Base class of decoders."""

from __future__ import annotations

from abc import abstractmethod
from typing import Any, NamedTuple

import keras

from effcap.layers.lora import HeadWeights


class Prefix(NamedTuple):
    """Embeddings before the text, mapped from memory.

    Attributes:
        values: (B, P, D).
        mask: bool (B, P), true where the text attends. None attends everywhere.
        gate: (B, P), the mask as a number, with a gradient for what it was made from. None for a
            mask without a gradient.
    """

    values: Any
    mask: Any = None
    gate: Any = None


class Decoder(keras.layers.Layer):
    """A language model that generates captions from memory.

    The captioner, the samplers and the trainers use only this interface, so that all kinds in
    `effcap.decoders.registry.DECODERS` are interchangeable.

    Letters of shapes: B images, K captions of each, R = B*K rows with the rows of an image
    adjacent, T tokens, V vocabulary.

    Attributes:
        vocabulary_size: number V of tokens.
        max_sequence_length: number of positions, including those of a prefix.
        output_vocabulary: tokens that captions may be made of, as ranges such as "0-255 262"; see
            `effcap.output_vocabulary`. None for all.
    """

    vocabulary_size: int
    max_sequence_length: int
    output_vocabulary: str | None = None

    @property
    @abstractmethod
    def max_text_length(self) -> int:
        """Maximum number of tokens of a caption, including the start token."""

    @property
    def has_prefix(self) -> bool:
        """Returns whether memory is mapped to a prefix by `map_prefix`."""
        return False

    @property
    def prefix_length(self) -> int:
        """Number of prefix positions before the first input of a caption."""
        return 0

    @property
    @abstractmethod
    def pretrained_variables(self) -> list[keras.Variable]:
        """Variables that come with a pretrained language model: neither fusion nor added tokens."""

    def map_prefix(self, memory: Any, training: bool | None = None) -> Prefix:
        """Maps memory to a prefix, which the other methods take in place of memory.

        Raises:
            NotImplementedError: the decoder takes no prefix; see `has_prefix`.
        """
        raise NotImplementedError(f"{type(self).__name__} takes no prefix")

    def embed_tokens(self, tokens: Any) -> Any:
        """Computes embeddings (..., D) of tokens (...), without positions.

        Raises:
            NotImplementedError: the decoder takes no prefix to compare them with.
        """
        raise NotImplementedError(f"{type(self).__name__} takes no prefix")

    def call(
        self, tokens: Any, memory: Any = None, segments: Any = None, training: bool | None = None
    ) -> Any:
        """Computes the logits of the next tokens.

        Args:
            tokens: int (B, T). A row may hold several concatenated captions of an image.
            memory: tuple of `Memory` with B rows, or the result of `map_prefix`. None decodes
                without memory.
            segments: int (B, T), the number of the caption that each token belongs to. A token
                attends to those of its own caption only, and positions count from its start. None
                for one caption per row.
            training: whether dropout is active.

        Returns:
            Logits (B, T, V), float32.
        """
        return self.call_with_attention(tokens, memory, segments, training)[0]

    @abstractmethod
    def call_with_attention(
        self, tokens: Any, memory: Any = None, segments: Any = None, training: bool | None = None
    ) -> tuple[Any, list[tuple]]:
        """Computes logits, and the attention weights on memory.

        Returns:
            Logits (B, T, V), and for each layer a tuple of weights (B, H, T, S), one for each
            memory.
        """

    @abstractmethod
    def precompute_kv(self, memory: Any, training: bool | None = None) -> list:
        """Computes the keys and values of memory, once per image, for each layer.

        Args:
            memory: tuple of `Memory` with B rows, the result of `map_prefix`, or None.
            training: whether dropout is active.

        Returns:
            A list to pass to `step`.
        """

    @abstractmethod
    def empty_cache(self, rows: int, length: int) -> Any:
        """Creates the cache of `rows` rows for `length` steps: nested lists and dicts of tensors.

        Raises:
            ValueError: `length` exceeds `max_text_length`.
        """

    @abstractmethod
    def prefill(self, tokens: Any, cache: Any, memory_kv: list) -> Any:
        """Decodes the first positions in one call.

        Args:
            tokens: int (R, T), the tokens at positions 0 to T - 1.
            cache: result of `empty_cache`, with R rows.
            memory_kv: result of `precompute_kv`, with B rows.

        Returns:
            The updated cache, for `step` at position T.
        """

    @abstractmethod
    def output_head(self, tokens: Any = None) -> HeadWeights:
        """Prepares the weights of the output projection, once for all steps.

        Args:
            tokens: int (N,), the tokens to compute logits of, in their order. None for all V.
        """

    @abstractmethod
    def step(
        self,
        tokens: Any,
        position: Any,
        cache: Any,
        memory_kv: list,
        head: HeadWeights | None = None,
    ) -> tuple[Any, Any]:
        """Decodes one position.

        Args:
            tokens: int (R,), the tokens at `position`.
            position: int scalar, counted from the start token.
            cache: result of `empty_cache`, `prefill` or the previous step, with R rows.
            memory_kv: result of `precompute_kv`, with B rows.
            head: result of `output_head`. Default that for all tokens.

        Returns:
            Logits (R, V) of the next token, float32, and the updated cache; (R, N) with the head of
            N tokens.
        """

    @abstractmethod
    def extend(
        self,
        tokens: Any,
        positions: Any,
        mask: Any,
        cache: list[dict],
        memory_kv: list,
        head: HeadWeights | None = None,
    ) -> tuple[Any, list[dict]]:
        """Decodes tokens that need not follow each other, such as those of the beams of an image.

        Args:
            tokens: int (B, T).
            positions: int (T,), counted from the start token.
            mask: bool (B, T, S + T), true where a token attends to an earlier one or to itself.
            cache: keys and values of the earlier tokens for each block, `{"keys", "values"}` of
                shape (B, H, S, d).
            memory_kv: result of `precompute_kv`, with B rows.
            head: as in `step`.

        Returns:
            Logits (B, T, V), float32, and keys and values (B, H, S + T, d) for each block.
        """
