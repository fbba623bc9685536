"""BERT as a language model: post-norm blocks with cross-attention on memory."""

from __future__ import annotations

from typing import Any

import keras
from keras import ops

from effcap.decoders.block_decoder import BlockDecoder, check_frozen
from effcap.layers.attention import INITIALIZER_STDDEV, CrossAttention, dense
from effcap.layers.embedding import Embedding
from effcap.layers.lora import TiedHead
from effcap.layers.transformer import PostNormBlock, find_activation
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
    "first_cross_layer",
    "num_token_types",
    "frozen",
    "activation",
    "epsilon",
)
EPSILON = 1e-12  # BERT's, of all layer norms


class BERT(BlockDecoder):
    """BERT (Devlin et al. 2019) with a causal mask, as the text decoder of BLIP and X-VLM.

    Its cross-attention takes memory of any width, without a projection.

    Args:
        vocabulary_size: number V of tokens.
        max_sequence_length: number of positions. Default 512.
        hidden_dim: model width D. Default 768.
        num_heads: number of heads H. Default 12.
        num_layers: number of blocks L. Default 12.
        intermediate_dim: width of the MLPs' hidden layers. None takes 4*D.
        dropout: rate on embeddings and on each sublayer's output. Default 0.1.
        attention_dropout: rate on the attention weights. Default 0.1.
        first_cross_layer: index of the first block with cross-attention; those before have none,
            as in X-VLM, which has 6. Default 0.
        num_token_types: number of token types, of which all tokens have the first, as in X-VLM,
            which has 2. 0 for no embedding of types. Default 0.
        frozen: variables that are not trained, None, "embeddings" (of tokens, positions and types)
            or "pretrained" (all of BERT, without cross-attention).
        activation: activation of the MLPs and before the output embedding, a key of
            `effcap.layers.transformer.ACTIVATIONS`. Default "gelu".
        epsilon: epsilon of all layer norms. Default 1e-12.
        output_vocabulary: tokens that captions may be made of, as ranges such as "0-255 262";
            see `Captioner.restrict_vocabulary`. None for all.

    Call arguments, returns: as in `Decoder`. Blocks without cross-attention give no attention
    weights.

    Raises:
        ValueError: hyperparameters do not fit each other, the encoder gives several memories, or a
            caption exceeds `max_text_length`.
    """

    def __init__(
        self,
        vocabulary_size: int,
        max_sequence_length: int = 512,
        hidden_dim: int = 768,
        num_heads: int = 12,
        num_layers: int = 12,
        intermediate_dim: int | None = None,
        dropout: float = 0.1,
        attention_dropout: float = 0.1,
        first_cross_layer: int = 0,
        num_token_types: int = 0,
        frozen: str | None = None,
        activation: str = "gelu",
        epsilon: float = EPSILON,
        output_vocabulary: str | None = None,
        name: str = "bert",
        **kwargs: Any,
    ):
        super().__init__(name=name, **kwargs)
        check_frozen(frozen)
        check_output_vocabulary(output_vocabulary, vocabulary_size)
        self.output_vocabulary = output_vocabulary
        if not 0 <= first_cross_layer < num_layers:
            raise ValueError(
                "Expected first_cross_layer from 0 to num_layers - 1, so that a layer attends to "
                f"memory. Received: first_cross_layer={first_cross_layer}, num_layers={num_layers}"
            )
        self.vocabulary_size, self.max_sequence_length = vocabulary_size, max_sequence_length
        self.hidden_dim, self.num_heads, self.num_layers = hidden_dim, num_heads, num_layers
        self.intermediate_dim = intermediate_dim
        self.dropout, self.attention_dropout = dropout, attention_dropout
        self.first_cross_layer, self.num_token_types = first_cross_layer, num_token_types
        self.frozen, self.activation, self.epsilon = frozen, activation, epsilon
        self.activate = find_activation(activation)
        self.token_embedding = Embedding(vocabulary_size, hidden_dim, name="token_embedding")
        self.position_embedding = Embedding(
            max_sequence_length, hidden_dim, name="position_embedding"
        )
        self.type_embedding = None
        if num_token_types:
            self.type_embedding = Embedding(num_token_types, hidden_dim, name="type_embedding")
        self.embedding_norm = keras.layers.LayerNormalization(
            epsilon=epsilon, name="embedding_norm"
        )
        self.embedding_dropout = keras.layers.Dropout(dropout, name="embedding_dropout")
        self.blocks = [
            PostNormBlock(
                hidden_dim,
                num_heads,
                intermediate_dim or 4 * hidden_dim,
                dropout,
                attention_dropout,
                fusion=self._create_fusion() if i >= first_cross_layer else None,
                activation=self.activate,
                epsilon=epsilon,
                name=f"block_{i}",
            )
            for i in range(num_layers)
        ]
        self.transform = dense(hidden_dim, "transform")
        self.transform_norm = keras.layers.LayerNormalization(
            epsilon=epsilon, name="transform_norm"
        )
        self.head = TiedHead(hidden_dim, vocabulary_size, use_bias=True, name="head")

    def _create_fusion(self) -> keras.layers.Layer:
        return PostNormCrossFusion(
            self.hidden_dim,
            self.num_heads,
            self.dropout,
            self.attention_dropout,
            self.epsilon,
            name="fusion",
        )

    def build(self, shape: Any = None, memory_shapes: Any = None) -> None:
        text_shape = (None, None, self.hidden_dim)
        memory_shapes = memory_shapes or [text_shape]
        if len(memory_shapes) != 1:
            raise ValueError(
                "decoder.kind='bert' takes an encoder with one memory, such as "
                "encoder.kind='backbone' or one with encoder.num_levels=1. "
                f"Received: {len(memory_shapes)} memories"
            )
        for embedding in self._embeddings:
            embedding.build()
        for block in self.blocks:
            block.build(text_shape, memory_shapes)
        for layer in (self.embedding_norm, self.transform, self.transform_norm):
            layer.build(text_shape)
        self.head.build()
        self.freeze(self._embeddings)
        self.built = True

    @property
    def _embeddings(self) -> list[Embedding]:
        tables = (self.token_embedding, self.position_embedding, self.type_embedding)
        return [table for table in tables if table is not None]

    @property
    def pretrained_variables(self) -> list[keras.Variable]:
        fusions = [block.fusion for block in self.blocks]
        added = {id(weight) for fusion in fusions if fusion for weight in fusion.weights}
        return [weight for weight in self.weights if id(weight) not in added]

    def embed_tokens(self, tokens: Any) -> Any:
        """Computes embeddings (..., D) of tokens (...), without positions, types and layer norm."""
        return self.token_embedding(tokens)  # (...,D)

    def embed(self, tokens: Any, positions: Any, start: Any = None) -> Any:
        positions = ops.convert_to_tensor(positions)
        x = self.embed_tokens(tokens) + self.position_embedding(positions)  # (...,D)
        if self.type_embedding is not None:
            x = x + ops.cast(self.type_embedding.embeddings[0], x.dtype)
        return self.embedding_norm(ops.cast(x, self.compute_dtype))

    @property
    def token_tables(self) -> list[Any]:
        return [self.token_embedding.embeddings]

    def normalize_output(self, x: Any) -> Any:
        return self.transform_norm(self.activate(self.transform(x)))  # (...,D)

    def precompute_kv(self, memory: Any, training: bool | None = None) -> list:
        return [None if memory is None else block.precompute_kv(memory) for block in self.blocks]

    def get_config(self) -> dict:
        return {name: getattr(self, name) for name in CONFIG} | self.output_config()


class PostNormCrossFusion(keras.layers.Layer):
    """Post-norm residual cross-attention on one memory: norm(h + cross(h, memory)).

    Args:
        hidden_dim: model width D.
        num_heads: number of heads.
        dropout: rate on the output.
        attention_dropout: rate on the attention weights.
        epsilon: epsilon of the layer norm.

    Call arguments, returns: as in `CrossFusion`, without `norm`.
    """

    def __init__(
        self,
        hidden_dim: int,
        num_heads: int,
        dropout: float,
        attention_dropout: float,
        epsilon: float,
        **kwargs: Any,
    ):
        super().__init__(**kwargs)
        self.attention = CrossAttention(
            hidden_dim, num_heads, attention_dropout, INITIALIZER_STDDEV, name="attention"
        )
        self.norm = keras.layers.LayerNormalization(epsilon=epsilon, name="norm")
        self.dropout = keras.layers.Dropout(dropout, name="dropout")

    def build(self, shape: Any, memory_shapes: Any) -> None:
        self.attention.build(shape, memory_shapes[0])
        self.norm.build(shape)
        self.built = True

    def precompute_kv(self, memory: Any) -> list[dict]:
        """Computes the keys and values, each (B, H, S, d), of the memory."""
        return [self.attention.precompute_kv(level.values, level.mask) for level in memory]

    def call(
        self, x: Any, memory_kv: list[dict], training: bool | None = None
    ) -> tuple[Any, tuple]:
        output, weights = self.attention(x, memory_kv[0], training=training)  # (R,T,D)
        return self.norm(x + self.dropout(output, training=training)), (weights,)
