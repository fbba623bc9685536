"""Base class of decoders that are a stack of blocks with a cache each."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence
from typing import Any

from keras import ops

from effcap.decoders.base import Decoder
from effcap.layers.embedding import Embedding
from effcap.layers.lora import HeadWeights, TiedHead

FROZEN = (None, "embeddings", "pretrained")


class BlockDecoder(Decoder):
    """A decoder of L blocks between embeddings and logits.

    A block is called as `TransformerBlock` is. Subclasses create the layers.

    Attributes:
        blocks: the blocks.
        hidden_dim: model width D.
        num_heads: number of heads H of each block.
        num_layers: number of blocks L.
        frozen: item of `FROZEN`.
        head: output projection.
    """

    blocks: list
    hidden_dim: int
    num_heads: int
    num_layers: int
    frozen: str | None
    embedding_dropout: Any
    head: TiedHead

    @property
    def max_text_length(self) -> int:
        return self.max_sequence_length - self.prefix_length

    @abstractmethod
    def embed(self, tokens: Any, positions: Any, start: Any = None) -> Any:
        """Computes embeddings (..., D) of tokens (...) at text positions (...).

        Args:
            tokens: int (...).
            positions: int (...) or scalar.
            start: embedding, broadcastable to (..., D), in place of the start token's. None for the
                start token's own.
        """

    @property
    @abstractmethod
    def token_tables(self) -> list[Any]:
        """Embeddings of all tokens, (V_i, D) each, V tokens in all."""

    @abstractmethod
    def normalize_output(self, x: Any) -> Any:
        """Computes the input (..., D) of the output projection from the last block's output."""

    def logits(self, x: Any) -> Any:
        """Computes float32 logits (..., V) of the last block's output (..., D)."""
        x = self.normalize_output(x)
        return self.head(x, [ops.cast(table, x.dtype) for table in self.token_tables])  # (...,V)

    def output_head(self, tokens: Any = None) -> HeadWeights:
        if tokens is None:
            return self.head.prepare(self.token_tables)
        return self.head.prepare([self.embed_tokens(tokens)], tokens)

    def freeze(self, embeddings: Sequence[Embedding]) -> None:
        """Freezes the variables that `frozen` names; call it at the end of `build`.

        Args:
            embeddings: the pretrained embeddings.
        """
        tables = [embedding.embeddings for embedding in embeddings]
        frozen = {None: [], "embeddings": tables}.get(self.frozen, self.pretrained_variables)
        for variable in frozen:
            variable.trainable = False

    def output_config(self) -> dict[str, Any]:
        """Returns the output vocabulary as an argument of the class, if there is one."""
        text = self.output_vocabulary
        return {} if text is None else {"output_vocabulary": text}

    def start_embedding(self, memory_kv: list, rows: Any) -> Any:
        """Returns what takes the place of the start token's embedding, (R, D); None for itself."""
        return None

    def call_with_attention(
        self, tokens: Any, memory: Any = None, segments: Any = None, training: bool | None = None
    ) -> tuple[Any, list[tuple]]:
        if segments is None and (tokens.shape[1] or 0) > self.max_text_length:
            raise ValueError(
                f"Expected at most {self.max_text_length} tokens, as many as the decoder has "
                f"positions for. Received: tokens of shape {tuple(tokens.shape)}"
            )
        mask, positions = packed_mask(tokens, segments)  # (B|1,T,T), (B|1,T)
        positions = ops.minimum(positions, self.max_text_length - 1)  # padding may be longer
        memory_kv = self.precompute_kv(memory, training)
        start = self.start_embedding(memory_kv, ops.shape(tokens)[0])  # (B,D)
        if start is not None:
            start = ops.expand_dims(start, 1)  # (B,1,D)
        x = self.embed(tokens, positions, start)  # (B,T,D)
        x = self.embedding_dropout(x, training=training)
        all_weights = []
        for block, kv in zip(self.blocks, memory_kv, strict=True):
            x, _, weights = block(
                x, attention_mask=mask, memory_kv=kv, training=training
            )  # (B,T,D)
            all_weights.append(weights)
        return self.logits(x), all_weights

    def empty_cache(self, rows: int, length: int) -> list[dict]:
        if length > self.max_text_length:
            raise ValueError(
                f"Expected max_new_tokens of at most {self.max_text_length}, as many as the "
                f"decoder has positions for. Received: {length}"
            )
        shape = (rows, self.num_heads, length, self.hidden_dim // self.num_heads)
        return [
            {name: ops.zeros(shape, dtype=self.compute_dtype) for name in ("keys", "values")}
            for _ in range(self.num_layers)
        ]

    def prefill(self, tokens: Any, cache: list[dict], memory_kv: list) -> list[dict]:
        positions = ops.arange(tokens.shape[1], dtype="int32")  # (T,)
        return self._decode(tokens, positions, cache, memory_kv)[1]

    def step(
        self,
        tokens: Any,
        position: Any,
        cache: list[dict],
        memory_kv: list,
        head: HeadWeights | None = None,
    ) -> tuple[Any, list[dict]]:
        positions = ops.reshape(position, (1,))
        x, cache = self._decode(ops.expand_dims(tokens, 1), positions, cache, memory_kv)  # (R,1,D)
        x = self.normalize_output(ops.squeeze(x, 1))  # (R,D)
        return self.head.project(x, head or self.output_head()), cache  # (R,V)

    def extend(
        self,
        tokens: Any,
        positions: Any,
        mask: Any,
        cache: list[dict],
        memory_kv: list,
        head: HeadWeights | None = None,
    ) -> tuple[Any, list[dict]]:
        x, cache = self._run_blocks(tokens, positions, mask, cache, memory_kv)  # (B,T,D)
        x = self.normalize_output(x)  # (B,T,D)
        return self.head.project(x, head or self.output_head()), cache  # (B,T,V)

    def _decode(
        self, tokens: Any, positions: Any, cache: list[dict], memory_kv: list
    ) -> tuple[Any, list[dict]]:
        """Runs the blocks over tokens (R, T) at consecutive positions (T,), and their cache."""
        length = cache[0]["keys"].shape[2]
        mask = ops.arange(length)[None, :] <= ops.expand_dims(positions, 1)  # (T,S)
        mask = ops.expand_dims(mask, 0)  # (1,T,S)
        return self._run_blocks(tokens, positions, mask, cache, memory_kv, positions[0])

    def _run_blocks(
        self,
        tokens: Any,
        positions: Any,
        mask: Any,
        cache: list[dict],
        memory_kv: list,
        position: Any = None,
    ) -> tuple[Any, list[dict]]:
        """Runs the blocks over tokens (R, T); `position` is as in `SelfAttention`."""
        start = self.start_embedding(memory_kv, ops.shape(tokens)[0])  # (R,D)
        if start is not None:
            start = ops.expand_dims(start, 1)  # (R,1,D)
        x = self.embed(tokens, positions, start)  # (R,T,D)
        new_cache = []
        for block, layer_cache, kv in zip(self.blocks, cache, memory_kv, strict=True):
            x, layer_cache, _ = block(
                x,
                attention_mask=mask,
                cache=layer_cache,
                position=position,
                memory_kv=kv,
                training=False,
            )  # (R,T,D)
            new_cache.append(layer_cache)
        return x, new_cache


def check_frozen(frozen: Any) -> None:
    """Checks that `frozen` names variables that a decoder can freeze.

    Raises:
        ValueError: it does not.
    """
    if frozen not in FROZEN:
        raise ValueError(
            f"Expected frozen out of {', '.join(map(repr, FROZEN))}. Received: frozen={frozen!r}"
        )


def packed_mask(tokens: Any, segments: Any = None) -> tuple[Any, Any]:
    """Computes the causal mask of packed captions, and each token's position in its caption.

    Args:
        tokens: (B, T).
        segments: int (B, T), the number of the caption that each token belongs to. None for one
            caption per row.

    Returns:
        The mask, bool (B, T, T), and positions, int32 (B, T); with 1 in place of B without
        segments.
    """
    steps = ops.arange(tokens.shape[1] or ops.shape(tokens)[1], dtype="int32")
    mask = ops.expand_dims(steps[:, None] >= steps[None, :], 0)  # (1,T,T)
    if segments is not None:
        same = ops.equal(ops.expand_dims(segments, 2), ops.expand_dims(segments, 1))  # (B,T,T)
        mask = ops.logical_and(mask, same)  # (B,T,T)
    return mask, ops.sum(ops.cast(mask, "int32"), axis=-1) - 1  # (B,T)
