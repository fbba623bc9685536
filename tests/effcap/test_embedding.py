"""Embedding tables train as if each id were a one-hot vector."""

from __future__ import annotations

import keras
import numpy as np
import pytest
from keras import ops

from effcap.layers.embedding import Embedding
from helpers.captioners import example_batch, numpy, randomize
from helpers.data_maker import make_captioner

RATE = 0.01


class OneHotEmbedding(Embedding):
    """The same table as a matrix product, whose gradient is dense on every backend."""

    def call(self, ids):
        return ops.matmul(ops.one_hot(ids, self.num_embeddings), self.embeddings)


def train(embedding: type, **limits: float) -> np.ndarray:
    """Returns the changes (10, N) of all embedding tables after each of ten steps of Adam."""
    captioner = randomize(make_captioner(num_special_tokens=2, dropout=0, attention_dropout=0))
    decoder = captioner.decoder
    layers = [decoder.token_embedding, decoder.position_embedding, decoder.special_embedding]
    for layer in layers:
        layer.__class__ = embedding

    def tables() -> np.ndarray:
        return np.concatenate([numpy(layer.embeddings).ravel() for layer in layers])

    adam = keras.optimizers.Adam(RATE, epsilon=1e-3, **limits)
    captioner.compile(adam, jit_compile=keras.backend.backend() == "jax")
    before, changes = tables(), []
    inputs, targets, weights = example_batch(captioner, rows=6)
    for _ in range(10):
        captioner.train_on_batch(inputs, targets, weights)
        changes.append(tables() - before)
    return np.array(changes)


@pytest.mark.slow
@pytest.mark.parametrize(
    "limits", ({}, pytest.param({"global_clipnorm": 0.1}, marks=pytest.mark.slow))
)
def test_ten_steps_of_adam_equal_those_of_one_hot_vectors(limits):
    changes, expected = train(Embedding, **limits), train(OneHotEmbedding, **limits)
    assert np.abs(changes[0]).max() <= RATE * 1.0001  # Adam's first step
    assert np.abs(expected[-1]).max() > RATE
    np.testing.assert_allclose(changes, expected, rtol=0, atol=1e-5)
