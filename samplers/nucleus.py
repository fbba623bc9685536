"""Nucleus sampling."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, ClassVar

import keras
import numpy as np

from effcap.samplers.backend import ops
from effcap.samplers.base import Hypotheses, Sampler, Step
from effcap.samplers.constraints import MAX_LOGIT, NextToken
from effcap.samplers.decode_loop import DecodeLoop, decode_rows
from effcap.samplers.ops import top_k

NUM_SORTED = 256  # number of most probable tokens searched before the whole vocabulary is sorted


@dataclass(frozen=True, kw_only=True)
class Nucleus(Sampler):
    """Nucleus sampling: draws each token from the most probable ones (Holtzman et al., 2020).

    Logits of allowed tokens are divided by `temperature`. Of the `top_k` largest, the smallest set
    that reaches `top_p` of their probability is kept, at least one token, and the token is drawn
    from it in proportion. Of equal tokens the lower id comes first.

    Words of `include` are written where they are likely, at least 1 % as probable as the most
    probable token, and otherwise before the sentence ends. `Beam` finds better places for them.

    Generates K = `num_captions` captions per image (R = B * K rows), drawn independently and
    returned in the order drawn. Scores are log-probabilities before temperature and truncation.

    Args:
        top_p: probability to keep, above 0 and at most 1. 1.0 keeps all tokens.
        top_k: maximum number of tokens to keep, 0 for no limit.
        temperature: divisor of the logits, above 0. Below 1 sharpens the distribution.
        num_captions: number of captions drawn per image.
        seed: random seed, an integer for the same captions at every call. They then depend on the
            seed and the index of the image in the call only: not on the other images, the batch
            size or the backend. A `keras.random.SeedGenerator` gives new captions at every
            call, inside compiled functions too (under `jax.jit` its state is passed through a
            `keras.StatelessScope`, as in any Keras layer). None creates such a generator.
    """

    top_p: float = 0.9
    top_k: int = 0
    temperature: float = 1.0
    num_captions: int = 1
    seed: int | keras.random.SeedGenerator | None = None
    _dynamic: ClassVar[dict[str, tuple[float, float]]] = {
        **Sampler._dynamic,
        "top_p": (1.0, 0.5),
        "temperature": (1.0, 1.0),
    }
    # Set per instance; as a ClassVar it is not a field of the dataclass.
    _generator: ClassVar[keras.random.SeedGenerator | None]

    def __post_init__(self) -> None:
        super().__post_init__()
        self._check_number("top_p", above=0.0)
        if self.top_p > 1.0:
            raise ValueError(f"`top_p` must be at most 1. Received: top_p={self.top_p}")
        self._check_integer("top_k", minimum=0)
        self._check_number("temperature", above=0.0)
        self._check_integer("num_captions", minimum=1)
        generator = self.seed
        if generator is None:
            generator = keras.random.SeedGenerator()
        elif not isinstance(generator, keras.random.SeedGenerator):
            self._check_integer("seed", minimum=0)
            generator = None
        object.__setattr__(self, "_generator", generator)

    @property
    def rows_per_image(self) -> int:
        return self.num_captions

    def program(self) -> Sampler:
        return Sampler.program(replace(self, seed=0))

    def inputs(self, images: Sequence[int]) -> dict[str, np.ndarray]:
        seed = [self.seed] if isinstance(self.seed, int) else self._next_seed()
        shape = (self.num_captions, self.max_new_tokens)
        noise = [np.random.default_rng([*seed, i]).random(shape, np.float32) for i in images]
        return {**super().inputs(images), "noise": np.stack(noise)}  # (B,K,T)

    def __call__(
        self,
        step: Step,
        prompt: Any,
        state: Any,
        *,
        eos: int,
        inputs: Mapping[str, Any] | None = None,
    ) -> Hypotheses:
        loop = DecodeLoop(self, step, prompt, state, eos, inputs)
        noise = loop.values.get("noise")
        if noise is None:
            noise = self._noise(loop.batch_size)
        noise = ops.reshape(noise, (-1, self.max_new_tokens))  # (B,K,T) -> (R,T)

        def choose(next_token: NextToken, length: Any) -> Any:
            return self._draw(next_token.logits, ops.take(noise, length, axis=1), loop.values)

        return decode_rows(loop, choose)

    def _next_seed(self) -> list[int]:
        assert self._generator is not None
        return ops.convert_to_numpy(self._generator.next()).tolist()

    def _noise(self, batch_size: int) -> Any:
        """Draws uniform numbers in [0, 1) for all steps, (B, K, T)."""
        if isinstance(self.seed, int):
            return ops.convert_to_tensor(self.inputs(range(batch_size))["noise"])
        shape = (batch_size, self.num_captions, self.max_new_tokens)
        return keras.random.uniform(shape, dtype="float32", seed=self._generator)

    def _draw(self, logits: Any, noise: Any, values: Mapping[str, Any]) -> Any:
        """Draws token ids (R,) from logits (R, V) by noise (R,) in [0, 1)."""
        top_p, temperature = values["top_p"], values["temperature"]
        vocabulary_size = logits.shape[-1]
        largest = ops.max(logits, axis=-1, keepdims=True)  # (R, 1)
        largest = ops.maximum(largest, -MAX_LOGIT)  # finite if all tokens are forbidden
        weights = ops.exp((logits - largest) / temperature)  # (R, V)
        if 0 < self.top_k < vocabulary_size:
            weights, ids = top_k(weights, self.top_k)  # (R, V) -> (R, top_k)
            total = ops.sum(weights, axis=-1, keepdims=True)  # (R, 1)
            return _pick(weights, ids, top_p * total, noise)
        total = ops.sum(weights, axis=-1, keepdims=True)  # (R, 1)
        if self.top_p == 1.0:  # keeps all tokens: nothing to sort
            ids = ops.broadcast_to(ops.arange(vocabulary_size, dtype="int32"), weights.shape)
            return _pick(weights, ids, 2.0 * total, noise)
        if vocabulary_size <= 16 * NUM_SORTED:
            return _pick(*top_k(weights, vocabulary_size), top_p * total, noise)
        best_weights, best_ids = top_k(weights, NUM_SORTED)  # (R, NUM_SORTED)
        return ops.cond(
            ops.all(ops.sum(best_weights, axis=-1, keepdims=True) >= top_p * total),
            lambda: _pick(best_weights, best_ids, top_p * total, noise),
            lambda: _pick(*top_k(weights, vocabulary_size), top_p * total, noise),
        )


def _pick(weights: Any, ids: Any, threshold: Any, noise: Any) -> Any:
    """Draws one of `ids` (R, N) in proportion to `weights` (R, N) by `noise` (R,) in [0, 1).

    Draws from the leading ids only, up to the one where the sum of weights reaches `threshold`
    (R, 1).
    """
    cumulative = ops.cumsum(weights, axis=-1)  # (R, N)
    before = ops.pad(cumulative[:, :-1], ((0, 0), (1, 0)))  # (R, N)
    kept = ops.where(before < threshold, cumulative, 0.0)  # (R, N)
    mass = ops.max(kept, axis=-1, keepdims=True)  # (R, 1)
    below = ops.cast(cumulative <= noise[:, None] * mass, "int32")  # (R, N)
    index = ops.sum(below, axis=-1, keepdims=True)  # (R, 1)
    # Rounding must not select an id after the last one with a weight.
    last = ops.sum(ops.cast(cumulative < mass, "int32"), axis=-1, keepdims=True)  # (R, 1)
    return ops.take_along_axis(ids, ops.minimum(index, last), axis=1)[:, 0]
