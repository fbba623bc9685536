"""GPT-2 with a layer of fusion in every block: the part that writes."""

from __future__ import annotations

import keras
from keras import ops

from effcap.decoders.cross import make_fusion
from effcap.layers.attention import INITIALIZER_STDDEV
from effcap.layers.transformer import TransformerBlock

CONFIG = (
    "vocabulary_size",
    "positions",
    "width",
    "heads",
    "layers",
    "inner",
    "dropout",
    "attention_dropout",
    "special_tokens",
    "frozen",
    "fusion",
)
FROZEN = (None, "embeddings", "pretrained")


class GPT2(keras.layers.Layer):
    """GPT-2 (Radford et al., 2019) that looks at memory through a fusion layer in every block.

    Args:
        vocabulary_size: number V of tokens, the added special tokens included.
        positions: the longest text in tokens.
        width: model width D.
        heads: number of heads H.
        layers: number of blocks L.
        inner: width of the MLPs' hidden layer; 4*D by default.
        dropout: rate on embeddings and on what each part adds to the stream.
        attention_dropout: rate on the attention weights.
        special_tokens: how many of the V tokens are added special tokens. They have a small
            embedding table of their own, trainable while the pretrained one is frozen.
        frozen: what is not trained: None for nothing, "embeddings" for those of tokens and
            positions, "pretrained" for all that GPT-2 brings along, which leaves fusion and the
            added special tokens.
        fusion: `{"kind": "cross", ...}` as in `effcap.decoders.cross.FUSIONS`, or None for plain GPT-2.

    Call arguments:
        tokens: (B, T) int. A row may hold several captions of one photo one after the other.
        memory: what the encoder gave, a tuple of `Memory` of B rows; None leaves the fusion out.
        segments: (B, T) int, which caption of the row a token belongs to; a token sees only those
            of its own caption, and positions count from its start. None: one caption per row.

    Returns:
        logits (B, T, V) float32.

    Raises:
        ValueError: for hyperparameters that do not fit, or a caption longer than `positions`.
    """

    def __init__(
        self,
        vocabulary_size: int,
        positions: int = 1024,
        width: int = 768,
        heads: int = 12,
        layers: int = 12,
        inner: int | None = None,
        dropout: float = 0.1,
        attention_dropout: float = 0.1,
        special_tokens: int = 0,
        frozen: str | None = None,
        fusion: dict | None = None,
        name: str = "gpt2",
        **kwargs,
    ):
        super().__init__(name=name, **kwargs)
        if not 0 <= special_tokens < vocabulary_size:
            raise ValueError(
                "Expected fewer special tokens than tokens. "
                f"Received: special_tokens={special_tokens}, vocabulary_size={vocabulary_size}"
            )
        if frozen not in FROZEN:
            raise ValueError(
                f"Expected frozen out of {', '.join(map(repr, FROZEN))}. "
                f"Received: frozen={frozen!r}"
            )
        self.vocabulary_size, self.positions, self.width = vocabulary_size, positions, width
        self.heads, self.layers, self.inner = heads, layers, inner
        self.dropout, self.attention_dropout = dropout, attention_dropout
        self.special_tokens, self.frozen, self.fusion = special_tokens, frozen, fusion
        self.base_size = vocabulary_size - special_tokens
        self.embedding_dropout = keras.layers.Dropout(dropout, name="embedding_dropout")
        self.blocks = [
            TransformerBlock(
                width,
                heads,
                inner,
                dropout,
                attention_dropout,
                depth=layers,
                fusion=self._make_fusion(),
                name=f"block_{i}",
            )
            for i in range(layers)
        ]
        self.ln_f = keras.layers.LayerNormalization(epsilon=1e-5, name="ln_f")

    def _make_fusion(self) -> keras.layers.Layer | None:
        if self.fusion is None:
            return None
        names = ("width", "heads", "dropout", "attention_dropout")
        defaults = {name: getattr(self, name) for name in names}
        return make_fusion(**{"kind": None, **defaults, **self.fusion, "name": "fusion"})

    def build(self, shape=None, memory_shapes=None):
        start = keras.initializers.RandomNormal(stddev=INITIALIZER_STDDEV)
        self.wte = self.add_weight(
            shape=(self.base_size, self.width), initializer=start, name="wte"
        )
        self.wpe = self.add_weight(
            shape=(self.positions, self.width), initializer=start, name="wpe"
        )
        self.special_wte = None
        if self.special_tokens:
            self.special_wte = self.add_weight(
                shape=(self.special_tokens, self.width), initializer=start, name="special_wte"
            )
        for block in self.blocks:
            block.build((None, None, self.width), memory_shapes)
        self.ln_f.build((None, None, self.width))
        frozen = {None: [], "embeddings": [self.wte, self.wpe]}.get(
            self.frozen, self.pretrained_variables
        )
        for variable in frozen:
            variable.trainable = False
        self.built = True

    @property
    def pretrained_variables(self) -> list[keras.Variable]:
        """All that GPT-2 brings along: not the fusion, nor the added special tokens."""
        added = {id(self.special_wte)}
        for block in self.blocks:
            if block.fusion is not None:
                added |= {id(weight) for weight in block.fusion.weights}
        return [weight for weight in self.weights if id(weight) not in added]

    def embed(self, tokens, positions):
        """Embeddings (..., D) of tokens (...) at positions (...)."""
        x = ops.take(self.wte, ops.minimum(tokens, self.base_size - 1), axis=0)  # (...,D)
        if self.special_wte is not None:
            special = ops.maximum(tokens - self.base_size, 0)
            added = ops.take(self.special_wte, special, axis=0)  # (...,D)
            x = ops.where(ops.expand_dims(tokens >= self.base_size, -1), added, x)
        x = x + ops.take(self.wpe, positions, axis=0)  # (...,D)
        return ops.cast(x, self.compute_dtype)

    def logits(self, x):
        """Logits (..., V) float32 of the last block's output (..., D), by the tied embeddings."""
        x = self.ln_f(x)
        logits = ops.matmul(x, ops.transpose(ops.cast(self.wte, x.dtype)))  # (...,V)
        if self.special_wte is not None:
            added = ops.matmul(x, ops.transpose(ops.cast(self.special_wte, x.dtype)))
            logits = ops.concatenate([logits, added], axis=-1)  # (...,V)
        return ops.cast(logits, "float32")

    def project(self, memory) -> list:
        """The fusion contexts of all L blocks, computed once per image and shared by its rows."""
        if memory is None or self.fusion is None:
            return [None] * self.layers
        return [block.project(memory) for block in self.blocks]

    def call(self, tokens, memory=None, segments=None, training=None):
        return self.look(tokens, memory, segments, training)[0]

    def look(self, tokens, memory=None, segments=None, training=None) -> tuple:
        """What a call gives, and where the text looks: for each of L blocks the attention weights
        on each memory, (B, H, T, S)."""
        if segments is None and (tokens.shape[1] or 0) > self.positions:
            raise ValueError(
                f"Expected at most {self.positions} tokens, as many as the decoder has positions "
                f"for. Received: tokens of shape {tuple(tokens.shape)}"
            )
        visible, positions = visibility(tokens, segments)  # (B|1,T,T), (B|1,T)
        positions = ops.minimum(positions, self.positions - 1)  # padding may run on for longer
        x = self.embed(tokens, positions)  # (B,T,D)
        x = self.embedding_dropout(x, training=training)
        looks = []
        for block, contexts in zip(self.blocks, self.project(memory), strict=True):
            x, _, found = block(x, visible, contexts=contexts, training=training)  # (B,T,D)
            looks.append(found)
        return self.logits(x), looks

    def empty_cache(self, rows: int, length: int) -> list[dict]:
        """Buffers for the keys and values of `length` positions: L x {"keys", "values"}, each
        (rows, length, H, d).

        Raises:
            ValueError: when `length` is more than the model has positions for.
        """
        if length > self.positions:
            raise ValueError(
                f"Expected max_tokens of at most {self.positions}, as many as the decoder has "
                f"positions for. Received: {length}"
            )
        shape = (rows, length, self.heads, self.width // self.heads)
        return [
            {name: ops.zeros(shape, dtype=self.compute_dtype) for name in ("keys", "values")}
            for _ in range(self.layers)
        ]

    def step(self, tokens, position, cache, contexts):
        """One step of decoding.

        Args:
            tokens: (R,) the tokens at `position`; R = B*K, the K rows of an image adjacent.
            position: int scalar.
            cache: from `empty_cache` or the step before, with R rows.
            contexts: from `project`, with B rows.

        Returns:
            (logits (R, V) of the next token, cache).
        """
        length = cache[0]["keys"].shape[1]
        x = ops.expand_dims(self.embed(tokens, position), 1)  # (R,1,D)
        visible = ops.reshape(ops.arange(length) <= position, (1, 1, length))  # (1,1,S)
        written = []
        for block, layer_cache, seen in zip(self.blocks, cache, contexts, strict=True):
            x, layer_cache, _ = block(
                x, visible, cache=layer_cache, position=position, contexts=seen, training=False
            )  # (R,1,D)
            written.append(layer_cache)
        return self.logits(ops.squeeze(x, 1)), written  # (R,V)

    def get_config(self) -> dict:
        config = {name: getattr(self, name) for name in CONFIG}
        # Keras keeps a dict as one of its own, which drags the layer along where it is copied.
        return config | {"fusion": None if self.fusion is None else dict(self.fusion)}


def visibility(tokens, segments=None):
    """Which token sees which, and where in its caption each token stands.

    Args:
        tokens: (B, T).
        segments: (B, T) int, the caption each token belongs to, or None for one caption per row.

    Returns:
        (visible bool (B, T, T), positions int32 (B, T)); with 1 in place of B without segments.
    """
    steps = ops.arange(tokens.shape[1] or ops.shape(tokens)[1], dtype="int32")
    visible = ops.expand_dims(steps[:, None] >= steps[None, :], 0)  # (1,T,T)
    if segments is not None:
        same = ops.equal(ops.expand_dims(segments, 2), ops.expand_dims(segments, 1))  # (B,T,T)
        visible = ops.logical_and(visible, same)  # (B,T,T)
    return visible, ops.sum(ops.cast(visible, "int32"), axis=-1) - 1  # (B,T)
