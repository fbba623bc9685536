"""Nucleus sampling."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import keras
import numpy as np
from keras import ops

from effcap.samplers.base import Sampler, Samples, Step
from effcap.samplers.constraints import CEILING, NextToken
from effcap.samplers.decode_loop import Decoding, grow
from effcap.samplers.ops import top_k

LIKELY = 256  # tokens among which the nucleus is looked for first


@dataclass(frozen=True, kw_only=True)
class Nucleus(Sampler):
    """Draws each token from the most probable ones (Holtzman et al. 2020).

    The logits that the constraints leave are divided by `temperature`; of the `k` largest, the
    smallest set whose share of their probability reaches `p` is kept, at least one token; the
    token is drawn from it in proportion. Of equal tokens the lower id comes first.

    R = B * captions rows, each caption drawn independently of the others and returned in the order
    drawn. The score is the sum of the log-probabilities of the tokens, the `eos` included, under
    the model's distribution (after `repetition_penalty`; before temperature and truncation).

    Args:
        p: probability to keep, above 0 and at most 1. 1.0 keeps all. Default 0.9.
        k: tokens to keep at most. 0 (default) is no limit.
        temperature: above 0; below 1 sharpens the distribution. Default 1.0.
        captions: captions drawn per image. Default 1.
        seed: an int gives the same captions at each call, compiled or not, and on every backend; an
            image's do not depend on how many images follow it. A `keras.random.SeedGenerator` gives
            fresh ones, inside a compiled function too (under `jax.jit` its state is handed through
            a `keras.StatelessScope`, as in any Keras layer). None (default) makes such a generator.
    """

    p: float = 0.9
    k: int = 0
    temperature: float = 1.0
    captions: int = 1
    seed: int | keras.random.SeedGenerator | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        self._number("p", above=0.0)
        if self.p > 1.0:
            raise ValueError(f"`p` must be at most 1. Received: p={self.p}")
        self._integer("k", least=0)
        self._number("temperature", above=0.0)
        self._integer("captions", least=1)
        generator = self.seed
        if generator is None:
            generator = keras.random.SeedGenerator()
        elif not isinstance(generator, keras.random.SeedGenerator):
            self._integer("seed", least=0)
            generator = None
        object.__setattr__(self, "_generator", generator)

    @property
    def rows(self) -> int:
        return self.captions

    def __call__(self, step: Step, prompt: Any, state: Any, *, eos: int) -> Samples:
        decoding = Decoding(self, step, prompt, state, eos)
        noise = self._noise(decoding.token.shape[0])  # (R, T)

        def choose(following: NextToken, count: Any) -> Any:
            return self._draw(following.logits, ops.take(noise, count, axis=1))

        return grow(decoding, choose)

    def _noise(self, rows: int) -> Any:
        """Uniform numbers in [0, 1) for all steps, (R, T)."""
        if isinstance(self.seed, int):
            # Not from the backend: TensorFlow compiled with XLA draws otherwise than without.
            noise = np.random.default_rng(self.seed).random((rows, self.max_tokens), "float32")
            return ops.convert_to_tensor(noise)
        return keras.random.uniform((rows, self.max_tokens), dtype="float32", seed=self._generator)

    def _draw(self, logits: Any, noise: Any) -> Any:
        """Draws token ids (R,) from logits (R, V) by noise (R,) in [0, 1)."""
        vocabulary = logits.shape[-1]
        largest = ops.max(logits, axis=-1, keepdims=True)  # (R, 1)
        largest = ops.maximum(largest, -CEILING)  # finite where all is ruled out
        weights = ops.exp((logits - largest) / self.temperature)  # (R, V)
        if 0 < self.k < vocabulary:
            weights, ids = top_k(weights, self.k)  # (R, k)
            total = ops.sum(weights, axis=-1, keepdims=True)  # (R, 1)
            return _pick(weights, ids, self.p * total, noise)
        total = ops.sum(weights, axis=-1, keepdims=True)  # (R, 1)
        if self.p == 1.0:  # nothing to cut off, so nothing to sort
            ids = ops.broadcast_to(ops.arange(vocabulary, dtype="int32"), weights.shape)
            return _pick(weights, ids, 2.0 * total, noise)
        if vocabulary <= 16 * LIKELY:
            return _pick(*top_k(weights, vocabulary), self.p * total, noise)
        likely, ids = top_k(weights, LIKELY)  # (R, LIKELY)
        return ops.cond(
            ops.all(ops.sum(likely, axis=-1, keepdims=True) >= self.p * total),
            lambda: _pick(likely, ids, self.p * total, noise),
            lambda: _pick(*top_k(weights, vocabulary), self.p * total, noise),
        )


def _pick(weights: Any, ids: Any, enough: Any, noise: Any) -> Any:
    """Draws one of `ids` (R, N) in proportion to `weights` (R, N) by `noise` (R,) in [0, 1).

    Only the first ones are drawn, up to the one with which their sum reaches `enough` (R, 1).
    """
    reached = ops.cumsum(weights, axis=-1)  # (R, N)
    before = ops.pad(reached[:, :-1], ((0, 0), (1, 0)))  # (R, N)
    mass = ops.max(ops.where(before < enough, reached, 0.0), axis=-1, keepdims=True)  # (R, 1)
    place = ops.sum(ops.cast(reached <= noise[:, None] * mass, "int32"), axis=-1, keepdims=True)
    # Rounding must not lead past the last one that weighs anything.
    last = ops.sum(ops.cast(reached < mass, "int32"), axis=-1, keepdims=True)
    return ops.take_along_axis(ids, ops.minimum(place, last), axis=1)[:, 0]
