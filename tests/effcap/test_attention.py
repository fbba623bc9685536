"""Tests of effcap.layers.attention, against attention written out in NumPy."""

from __future__ import annotations

import numpy as np
import pytest
from helpers.captioners import numpy
from keras import ops

from effcap.layers.attention import CrossAttention, SelfAttention, attend


def softmax(x):
    e = np.exp(x - x.max(-1, keepdims=True))
    return e / e.sum(-1, keepdims=True)


def by_hand(queries, keys, values, visible):
    """One row, one head at a time: queries (B,Q,H,d), visible (B,Q,S) -> (B,Q,H,d)."""
    mixed = np.zeros_like(queries)
    for row in range(queries.shape[0]):
        for head in range(queries.shape[2]):
            q, k, v = (x[row, :, head] for x in (queries, keys, values))
            scores = np.where(visible[row], q @ k.T / np.sqrt(q.shape[-1]), -np.inf)
            mixed[row, :, head] = softmax(scores) @ v
    return mixed


def test_attention_equals_its_formula():
    rng = np.random.default_rng(0)
    queries = rng.normal(size=(2, 3, 4, 5)).astype("float32")
    keys, values = rng.normal(size=(2, 2, 6, 4, 5)).astype("float32")
    visible = rng.random((2, 3, 6)) < 0.5
    visible[:, :, 0] = True
    mixed, weights = attend(*map(ops.convert_to_tensor, (queries, keys, values, visible[:, None])))
    expected = by_hand(queries, keys, values, visible)
    np.testing.assert_allclose(numpy(mixed).reshape(2, 3, 4, 5), expected, rtol=1e-5, atol=1e-5)
    weights = numpy(weights)
    np.testing.assert_allclose(weights.sum(-1), 1, rtol=1e-5)
    assert (weights.transpose(0, 2, 3, 1)[~visible] == 0).all()


def cross_attention(heads=4, width=8):
    layer = CrossAttention(width, heads)
    layer.build((None, None, width), (None, None, width))
    rng = np.random.default_rng(1)
    for weight in layer.weights:
        weight.assign(rng.normal(size=weight.shape))
    return layer


def test_rows_of_an_image_share_its_memory():
    """K rows per image give what each of them gives alone with a copy of the memory."""
    rng = np.random.default_rng(2)
    layer = cross_attention()
    memory = rng.normal(size=(3, 5, 8)).astype("float32")
    x = rng.normal(size=(6, 2, 8)).astype("float32")
    output, weights = map(numpy, layer(x, layer.project(memory)))
    assert output.shape == (6, 2, 8) and weights.shape == (6, 4, 2, 5)
    for row in range(6):
        one_memory = layer.project(memory[row // 2 : row // 2 + 1])
        alone, one_weights = map(numpy, layer(x[row : row + 1], one_memory))
        np.testing.assert_allclose(output[row], alone[0], rtol=1e-5, atol=1e-5)
        np.testing.assert_allclose(weights[row], one_weights[0], rtol=1e-5, atol=1e-5)


def test_projected_memory_has_one_row_per_image():
    layer = cross_attention()
    context = layer.project(np.zeros((3, 5, 8), "float32"))
    assert {name: tuple(part.shape) for name, part in context.items()} == {
        "keys": (3, 5, 4, 2),
        "values": (3, 5, 4, 2),
    }


def test_cached_self_attention_equals_the_uncached():
    rng = np.random.default_rng(3)
    layer = SelfAttention(8, 2)
    layer.build((None, None, 8))
    x = rng.normal(size=(2, 5, 8)).astype("float32")
    causal = np.tril(np.ones((1, 5, 5), bool))
    expected, none = layer(x, ops.convert_to_tensor(causal))
    assert none is None
    # A buffer longer than the text, whose rest must not matter.
    cache = {name: ops.full((2, 7, 2, 4), 3.0) for name in ("keys", "values")}
    for position in range(5):
        visible = ops.convert_to_tensor(np.arange(7)[None, None] <= position)
        output, cache = layer(
            x[:, position : position + 1], visible, cache=cache, position=position
        )
        np.testing.assert_allclose(
            numpy(output)[:, 0], numpy(expected)[:, position], rtol=1e-5, atol=1e-6
        )


@pytest.mark.parametrize("layer", [SelfAttention, CrossAttention])
def test_heads_must_divide_the_width(layer):
    with pytest.raises(ValueError, match="width=10, heads=4"):
        layer(10, 4)
