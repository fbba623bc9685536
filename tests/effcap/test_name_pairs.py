"""Tests of effcap.weights.name_pairs."""

from __future__ import annotations

import keras
import numpy as np
import pytest

from effcap.weights.name_pairs import (
    NamePair,
    conv1d,
    embedding,
    find_variable,
    linear,
    nested,
    norm,
    raise_mismatches,
)

TENSORS = {"q": np.arange(6).reshape(2, 3), "k": 10 + np.arange(6).reshape(2, 3)}


def test_kernels_of_linears_are_transposed_and_joined():
    pair = NamePair("kernel", ("q", "k"), transposed=True)
    expected = [[0, 3, 10, 13], [1, 4, 11, 14], [2, 5, 12, 15]]  # (in, 2 * out)
    np.testing.assert_array_equal(pair.read(TENSORS), expected)
    assert pair.shape(keras.Variable(np.zeros((3, 4)))) == (2, 3)


def test_other_tensors_are_joined_as_they_are():
    pair = NamePair("kernel", ("q", "k"))
    np.testing.assert_array_equal(
        pair.read(TENSORS), [[0, 1, 2, 10, 11, 12], [3, 4, 5, 13, 14, 15]]
    )
    assert pair.read(TENSORS).dtype == np.float32
    assert pair.shape(keras.Variable(np.zeros((2, 6)))) == (2, 3)


def test_each_kind_of_layer_has_its_pairs():
    assert embedding("table", "wte") == [NamePair("table.embeddings", ("wte.weight",))]
    assert [pair.ours for pair in norm("ln", "n")] == ["ln.gamma", "ln.beta"]
    assert [pair.transposed for pair in conv1d("fc", "c_fc")] == [False, False]
    kernel, bias = linear("qk", "fc_q", "fc_k")
    assert kernel == NamePair("qk.kernel", ("fc_q.weight", "fc_k.weight"), transposed=True)
    assert bias == NamePair("qk.bias", ("fc_q.bias", "fc_k.bias"))


def test_nested_pairs_have_a_prefix_on_either_side():
    (pair,) = nested("blocks.0", "h.0", [NamePair("kernel", ("q", "k"), transposed=True)])
    assert pair == NamePair("blocks.0.kernel", ("h.0.q", "h.0.k"), transposed=True)


def test_paths_lead_through_attributes_and_lists():
    model = keras.Sequential([keras.Input((2,)), keras.layers.Dense(3)])
    assert find_variable(model, "layers.0.kernel") is model.layers[0].kernel
    for path in ("layers.1.kernel", "layers.0.gamma", "layer"):
        with pytest.raises(ValueError, match=f"no variable {path}"):
            find_variable(model, path)


def test_mismatches_are_listed_by_kind_and_cut_off_after_ten():
    raise_mismatches("file.pth", {"missing": [], "unexpected": []})
    names = [f"t{number}" for number in range(12)]
    with pytest.raises(ValueError) as caught:
        raise_mismatches("file.pth", {"missing": names, "unexpected": ["x (2,)"], "odd": []})
    message = str(caught.value)
    assert message.startswith("The weights of file.pth do not fit the model. Tensors missing: t0, ")
    assert "t9 and 2 more; unexpected: x (2,). Nothing was loaded" in message
