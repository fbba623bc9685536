"""GPT-2 with memory fused into every block, or before the text as a prefix."""

from __future__ import annotations

from typing import Any

import keras
from keras import ops

from effcap.decoders.base import Prefix
from effcap.decoders.block_decoder import BlockDecoder, check_frozen
from effcap.decoders.fusions import FUSIONS, create_fusion
from effcap.layers.embedding import Embedding
from effcap.layers.lora import TiedHead
from effcap.layers.transformer import TransformerBlock, find_activation
from effcap.output_vocabulary import check_output_vocabulary

CONFIG = (
    "vocabulary_size",
    "max_sequence_length",
    "hidden_dim",
    "num_heads",
    "num_layers",
    "intermediate_dim",
    "dropout",
    "attention_dropout",
    "num_special_tokens",
    "frozen",
    "fusion",
    "activation",
    "epsilon",
)
EPSILON = 1e-5  # GPT-2's, of all layer norms


class GPT2(BlockDecoder):
    """GPT-2 (Radford et al. 2019) that attends to memory through a fusion layer.

    Args:
        vocabulary_size: number V of tokens, including added special tokens.
        max_sequence_length: number of positions. Default 1024.
        hidden_dim: model width D. Default 768.
        num_heads: number of heads H. Default 12.
        num_layers: number of blocks L. Default 12.
        intermediate_dim: width of the MLPs' hidden layers. None takes 4*D.
        dropout: rate on embeddings and on each sublayer's output. Default 0.1.
        attention_dropout: rate on the attention weights. Default 0.1.
        num_special_tokens: number of added special tokens among the V tokens. They have a small
            embedding table of their own, trainable while the pretrained one is frozen. Default 0.
        frozen: variables that are not trained, None, "embeddings" (of tokens and positions) or
            "pretrained" (all of GPT-2, without fusion and added special tokens).
        fusion: `{"kind": "cross", ...}` as in `effcap.decoders.fusions.FUSIONS`. None for plain
            GPT-2.
        activation: activation of the MLPs, a key of `effcap.layers.transformer.ACTIVATIONS`.
            Default "gelu_new", GPT-2's form of GELU.
        epsilon: epsilon of the layer norms of GPT-2 and of `{"kind": "cross"}`. Default 1e-5.
        output_vocabulary: tokens that captions may be made of, as ranges such as "0-255 262";
            see `Captioner.restrict_vocabulary`. None for all.

    Call arguments, returns: as in `Decoder`.

    Raises:
        ValueError: hyperparameters do not fit each other, or a caption exceeds `max_text_length`.
    """

    def __init__(
        self,
        vocabulary_size: int,
        max_sequence_length: int = 1024,
        hidden_dim: int = 768,
        num_heads: int = 12,
        num_layers: int = 12,
        intermediate_dim: int | None = None,
        dropout: float = 0.1,
        attention_dropout: float = 0.1,
        num_special_tokens: int = 0,
        frozen: str | None = None,
        fusion: dict | None = None,
        activation: str = "gelu_new",
        epsilon: float = EPSILON,
        output_vocabulary: str | None = None,
        name: str = "gpt2",
        **kwargs: Any,
    ):
        super().__init__(name=name, **kwargs)
        if not 0 <= num_special_tokens < vocabulary_size:
            raise ValueError(
                "Expected num_special_tokens below vocabulary_size. Received: "
                f"num_special_tokens={num_special_tokens}, vocabulary_size={vocabulary_size}"
            )
        check_frozen(frozen)
        check_output_vocabulary(output_vocabulary, vocabulary_size)
        self.output_vocabulary = output_vocabulary
        self.vocabulary_size, self.max_sequence_length = vocabulary_size, max_sequence_length
        self.hidden_dim, self.num_heads, self.num_layers = hidden_dim, num_heads, num_layers
        self.intermediate_dim = intermediate_dim
        self.dropout, self.attention_dropout = dropout, attention_dropout
        self.num_special_tokens, self.frozen, self.fusion = num_special_tokens, frozen, fusion
        self.activation, self.epsilon = activation, epsilon
        self.base_size = vocabulary_size - num_special_tokens
        self.token_embedding = Embedding(self.base_size, hidden_dim, name="token_embedding")
        self.position_embedding = Embedding(
            max_sequence_length, hidden_dim, name="position_embedding"
        )
        self.special_embedding = None
        if num_special_tokens:
            self.special_embedding = Embedding(
                num_special_tokens, hidden_dim, name="special_embedding"
            )
        self.embedding_dropout = keras.layers.Dropout(dropout, name="embedding_dropout")
        self.prefix_fusion = None if self._fuses_in_blocks else self._create_fusion()
        self.blocks = [
            TransformerBlock(
                hidden_dim,
                num_heads,
                intermediate_dim,
                dropout,
                attention_dropout,
                num_layers=num_layers,
                fusion=self._create_fusion() if self._fuses_in_blocks else None,
                activation=find_activation(activation),
                epsilon=epsilon,
                name=f"block_{i}",
            )
            for i in range(num_layers)
        ]
        self.ln_f = keras.layers.LayerNormalization(epsilon=epsilon, name="ln_f")
        self.head = TiedHead(hidden_dim, vocabulary_size, name="head")

    @property
    def _fuses_in_blocks(self) -> bool:
        kind = (self.fusion or {}).get("kind")
        return kind not in FUSIONS or FUSIONS[kind].in_blocks

    def _create_fusion(self) -> keras.layers.Layer | None:
        if self.fusion is None:
            return None
        names = ["hidden_dim", "num_heads", "dropout", "attention_dropout"]
        if self.epsilon != EPSILON:  # only a fusion with such a layer norm takes it
            names.append("epsilon")
        defaults = {name: getattr(self, name) for name in names}
        return create_fusion(**{"kind": None, **defaults, **self.fusion, "name": "fusion"})

    def build(self, shape: Any = None, memory_shapes: Any = None) -> None:
        for embedding in (self.token_embedding, self.position_embedding, self.special_embedding):
            if embedding is not None:
                embedding.build()
        if self.prefix_fusion is not None:
            self.prefix_fusion.build(memory_shapes)
            if self.max_text_length < 1:
                raise ValueError(
                    f"The prefix takes {self.prefix_length} positions, which leaves none for text. "
                    "Choose a larger max_sequence_length or an encoder with fewer positions. "
                    f"Received: max_sequence_length={self.max_sequence_length}"
                )
        for block in self.blocks:
            block.build((None, None, self.hidden_dim), memory_shapes)
        self.ln_f.build((None, None, self.hidden_dim))
        self.head.build()
        self.freeze([self.token_embedding, self.position_embedding])
        self.built = True

    @property
    def has_prefix(self) -> bool:
        return self.prefix_fusion is not None

    @property
    def prefix_length(self) -> int:
        if self.prefix_fusion is None:
            return 0
        return self.prefix_fusion.prefix_length - self._starts_at_prefix

    @property
    def _starts_at_prefix(self) -> bool:
        """Returns whether the last prefix embedding takes the place of the start token."""
        return self.prefix_fusion is not None and not self.prefix_fusion.start_token

    @property
    def pretrained_variables(self) -> list[keras.Variable]:
        added_layers = [self.special_embedding, self.prefix_fusion]
        added_layers += [block.fusion for block in self.blocks]
        added = {id(weight) for layer in added_layers if layer for weight in layer.weights}
        return [weight for weight in self.weights if id(weight) not in added]

    def embed_tokens(self, tokens: Any) -> Any:
        """Computes embeddings (..., D) of tokens (...), without positions."""
        x = self.token_embedding(ops.minimum(tokens, self.base_size - 1))  # (...,D)
        if self.special_embedding is not None:
            special = self.special_embedding(ops.maximum(tokens - self.base_size, 0))  # (...,D)
            x = ops.where(ops.expand_dims(tokens >= self.base_size, -1), special, x)
        return x

    def embed(self, tokens: Any, positions: Any, start: Any = None) -> Any:
        x = self.embed_tokens(tokens)  # (...,D)
        if start is not None:
            x = ops.where(ops.expand_dims(ops.equal(positions, 0), -1), start, x)  # (...,D)
        x = x + self.position_embedding(ops.add(positions, self.prefix_length))  # (...,D)
        return ops.cast(x, self.compute_dtype)

    @property
    def token_tables(self) -> list[Any]:
        tables = (self.token_embedding, self.special_embedding)
        return [table.embeddings for table in tables if table is not None]

    def normalize_output(self, x: Any) -> Any:
        return self.ln_f(x)  # (...,D)

    def precompute_kv(self, memory: Any, training: bool | None = None) -> list:
        if memory is None or self.fusion is None:
            return [None] * self.num_layers
        if self.prefix_fusion is None:
            return [block.precompute_kv(memory) for block in self.blocks]
        prefix = memory if isinstance(memory, Prefix) else self.map_prefix(memory, training)
        return self._prefix_kv(prefix, training)

    def map_prefix(self, memory: Any, training: bool | None = None) -> Prefix:
        if self.prefix_fusion is None:
            return super().map_prefix(memory, training)
        return self.prefix_fusion(memory, training=training)

    def _prefix_kv(self, prefix: Prefix, training: bool | None) -> list[dict]:
        """Runs the blocks over a prefix: L x {"keys", "values"}, each (B, H, P, d).

        Without a start token, the last of the prefix embeddings is left to the text: it is "start"
        (B, D) of the first block.
        """
        length = self.prefix_length
        start = {"start": prefix.values[:, -1]} if self._starts_at_prefix else {}  # (B,D)
        if not length:
            return [start] + [{}] * (self.num_layers - 1)
        positions = self.position_embedding.embeddings[:length]  # (P,D)
        x = prefix.values[:, :length]  # (B,P,D)
        x = self.embedding_dropout(x + ops.cast(positions, x.dtype), training=training)
        steps = ops.arange(length)
        mask = ops.expand_dims(steps[:, None] >= steps[None, :], 0)  # (1,P,P)
        if prefix.mask is not None:
            mask = ops.logical_and(mask, ops.expand_dims(prefix.mask, 1))  # (B,P,P)
        masks = {"mask": prefix.mask, "gate": prefix.gate}
        masks = {name: value for name, value in masks.items() if value is not None}
        prefix_kv = []
        for block in self.blocks:
            x, kv, _ = block(x, attention_mask=mask, training=training)  # (B,P,D)
            prefix_kv.append({**kv, **masks})
        prefix_kv[0] |= start
        return prefix_kv

    def start_embedding(self, memory_kv: list, rows: Any) -> Any:
        if not self._starts_at_prefix or memory_kv[0] is None:
            return None
        start = memory_kv[0]["start"]  # (B,D)
        return ops.repeat(start, rows // ops.shape(start)[0], axis=0)  # (R,D)

    def get_config(self) -> dict:
        config = {name: getattr(self, name) for name in CONFIG}
        return config | {"fusion": _plain(self.fusion)} | self.output_config()


def _plain(value: Any) -> Any:
    """Returns plain dicts, because Keras's tracked ones reference the layer."""
    if isinstance(value, dict):
        return {name: _plain(item) for name, item in value.items()}
    return value
