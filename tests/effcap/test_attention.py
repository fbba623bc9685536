"""Tests of effcap.layers.attention, against attention written out in NumPy."""

from __future__ import annotations

import numpy as np
import pytest
from keras import ops

from effcap.layers.attention import CrossAttention, SelfAttention, attend
from helpers.captioners import numpy


def softmax(x):
    e = np.exp(x - x.max(-1, keepdims=True))
    return e / e.sum(-1, keepdims=True)


def by_hand(queries, keys, values, mask):
    """Computes attention row by row and head by head: queries (B,H,Q,d), mask (B,Q,S)."""
    mixed = np.zeros_like(queries)
    for row in range(queries.shape[0]):
        for head in range(queries.shape[1]):
            q, k, v = (x[row, head] for x in (queries, keys, values))
            scores = np.where(mask[row], q @ k.T / np.sqrt(q.shape[-1]), -np.inf)
            mixed[row, head] = softmax(scores) @ v
    return mixed


def test_attention_equals_its_formula():
    rng = np.random.default_rng(0)
    queries = rng.normal(size=(2, 4, 3, 5)).astype("float32")
    keys, values = rng.normal(size=(2, 2, 4, 6, 5)).astype("float32")
    mask = rng.random((2, 3, 6)) < 0.5
    mask[:, :, 0] = True
    mixed, weights = attend(*map(ops.convert_to_tensor, (queries, keys, values, mask[:, None])))
    expected = by_hand(queries, keys, values, mask).transpose(0, 2, 1, 3)  # (B,Q,H,d)
    np.testing.assert_allclose(numpy(mixed).reshape(2, 3, 4, 5), expected, rtol=1e-5, atol=1e-5)
    weights = numpy(weights)
    np.testing.assert_allclose(weights.sum(-1), 1, rtol=1e-5)
    assert (weights.transpose(0, 2, 3, 1)[~mask] == 0).all()


def cross_attention(heads=4, width=8):
    layer = CrossAttention(width, heads)
    layer.build((None, None, width), (None, None, width))
    rng = np.random.default_rng(1)
    for weight in layer.weights:
        weight.assign(rng.normal(size=weight.shape))
    return layer


def test_rows_of_an_image_share_its_memory():
    """K rows of an image equal each of them alone with a copy of the memory."""
    rng = np.random.default_rng(2)
    layer = cross_attention()
    memory = rng.normal(size=(3, 5, 8)).astype("float32")
    x = rng.normal(size=(6, 2, 8)).astype("float32")
    output, weights = map(numpy, layer(x, layer.precompute_kv(memory)))
    assert output.shape == (6, 2, 8) and weights.shape == (6, 4, 2, 5)
    for row in range(6):
        one_memory = layer.precompute_kv(memory[row // 2 : row // 2 + 1])
        alone, one_weights = map(numpy, layer(x[row : row + 1], one_memory))
        np.testing.assert_allclose(output[row], alone[0], rtol=1e-5, atol=1e-5)
        np.testing.assert_allclose(weights[row], one_weights[0], rtol=1e-5, atol=1e-5)


def test_keys_and_values_have_one_row_per_image():
    layer = cross_attention()
    memory_kv = layer.precompute_kv(np.zeros((3, 5, 8), "float32"))
    assert {name: tuple(tensor.shape) for name, tensor in memory_kv.items()} == {
        "keys": (3, 4, 5, 2),
        "values": (3, 4, 5, 2),
    }


def test_cached_self_attention_equals_uncached():
    rng = np.random.default_rng(3)
    layer = SelfAttention(8, 2)
    layer.build((None, None, 8))
    x = rng.normal(size=(2, 5, 8)).astype("float32")
    causal = np.tril(np.ones((1, 5, 5), bool))
    expected, _, prefix_weights = layer(x, attention_mask=ops.convert_to_tensor(causal))
    assert prefix_weights is None
    # A buffer longer than the text, whose rest must not matter.
    cache = {name: ops.full((2, 2, 7, 4), 3.0) for name in ("keys", "values")}
    for position in range(5):
        mask = ops.convert_to_tensor(np.arange(7)[None, None] <= position)
        output, cache, _ = layer(
            x[:, position : position + 1], attention_mask=mask, cache=cache, position=position
        )
        np.testing.assert_allclose(
            numpy(output)[:, 0], numpy(expected)[:, position], rtol=1e-5, atol=1e-6
        )


def causal_mask(length: int):
    return ops.convert_to_tensor(np.tri(length)[None] > 0)  # (1,T,T)


@pytest.mark.parametrize("captions", [1, 3])
def test_a_shared_prefix_equals_a_longer_text(captions):
    """Text after a precomputed prefix equals the same positions of prefix and text together."""
    rng = np.random.default_rng(4)
    layer = SelfAttention(8, 2)
    layer.build((None, None, 8))
    for weight in layer.weights:
        weight.assign(rng.normal(size=weight.shape))
    prefix = rng.normal(size=(2, 3, 8)).astype("float32")  # (B,P,D)
    text = rng.normal(size=(2 * captions, 4, 8)).astype("float32")  # (R,T,D)
    _, prefix_kv, _ = layer(prefix, attention_mask=causal_mask(3))
    output, _, weights = layer(text, attention_mask=causal_mask(4), prefix_kv=prefix_kv)
    whole = np.concatenate([prefix.repeat(captions, axis=0), text], axis=1)  # (R,P+T,D)
    expected, *_ = layer(whole, attention_mask=causal_mask(7))
    np.testing.assert_allclose(numpy(output), numpy(expected)[:, 3:], rtol=1e-4, atol=1e-4)
    assert weights.shape == (2 * captions, 2, 4, 3)
    hidden = prefix_kv | {"mask": ops.convert_to_tensor(np.array([[False] * 3, [True] * 3]))}
    masked, _, weights = layer(text, attention_mask=causal_mask(4), prefix_kv=hidden)
    alone, *_ = layer(text, attention_mask=causal_mask(4))
    np.testing.assert_allclose(
        numpy(masked)[:captions], numpy(alone)[:captions], rtol=1e-4, atol=1e-4
    )
    np.testing.assert_allclose(
        numpy(masked)[captions:], numpy(output)[captions:], rtol=1e-4, atol=1e-4
    )
    assert (numpy(weights)[:captions] == 0).all()


@pytest.mark.parametrize("layer", [SelfAttention, CrossAttention])
def test_num_heads_must_divide_hidden_dim(layer):
    with pytest.raises(ValueError, match="hidden_dim=10, num_heads=4"):
        layer(10, 4)
