"""Row-wise top-k against a stable sort, and gather."""

from __future__ import annotations

import numpy as np
import pytest
from keras import ops

from effcap.samplers import numpy_ops
from effcap.samplers.backend import numpy_arrays
from effcap.samplers.ops import gather, top_k


@pytest.mark.parametrize(
    "size, k", [(1, 1), (7, 7), (1000, 10), (1003, 3), (5000, 64), (50257, 10)]
)
@pytest.mark.parametrize("levels", [2, 50, None])
def test_top_k_equals_a_stable_sort(size, k, levels):
    random = np.random.default_rng(size)
    values = random.normal(size=(3, size)).astype("float32")
    if levels:  # many equal entries, and some forbidden
        values = random.integers(0, levels, (3, size)).astype("float32")
        values[values == 0] = -np.inf
    values[2, k // 2 :] = -np.inf
    expected = np.argsort(-values, axis=-1, kind="stable")[:, :k]
    with numpy_arrays():
        of_numpy = top_k(values, k)
    for largest, indices in (top_k(values, k), of_numpy):
        np.testing.assert_array_equal(ops.convert_to_numpy(indices), expected)
        best = np.take_along_axis(values, expected, axis=1)
        np.testing.assert_array_equal(ops.convert_to_numpy(largest), best)


@pytest.mark.parametrize("number", [0, 1, 30, 64])
def test_columns_are_replaced_in_a_copy(number):
    values = np.random.default_rng(0).normal(size=(3, 64)).astype("float32")
    condition = np.arange(64) < number
    before = values.copy()
    received = numpy_ops.where(condition, -np.inf, values)
    assert received.dtype == np.float32
    np.testing.assert_array_equal(received, np.where(condition, np.float32(-np.inf), before))
    np.testing.assert_array_equal(values, before)


def test_one_condition_for_all_columns_replaces_all_of_them():
    values = np.ones((3, 64), "float32")
    received = numpy_ops.where(np.array([True]), 0.0, values)
    np.testing.assert_array_equal(received, np.zeros((3, 64)))


def test_gather_selects_entries_of_the_same_row():
    values = np.arange(24).reshape(2, 4, 3)
    indices = np.array([[3, 0], [1, 1]], "int32")
    expected = np.stack([values[0, [3, 0]], values[1, [1, 1]]])
    np.testing.assert_array_equal(ops.convert_to_numpy(gather(values, indices)), expected)
