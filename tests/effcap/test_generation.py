"""Tests of effcap.generation: compiled generation models and their reuse."""

from __future__ import annotations

import numpy as np
import pytest

from effcap.captioner import Captioner
from effcap.generation import pad_rows
from effcap.samplers import Greedy, Nucleus
from helpers.captioners import example_inputs

SAMPLER = Greedy(max_new_tokens=4)


def generate(captioner: Captioner, rows: int, sampler=SAMPLER, **arguments) -> int:
    """Captions `rows` inputs and returns the number of models compiled so far."""
    inputs = example_inputs(captioner.encoder, rows)
    assert len(captioner.generate_batch(inputs, sampler, **arguments)) == rows
    return len(captioner._generation)


def test_smaller_batches_reuse_a_compiled_model(captioner):
    assert generate(captioner, 3, batch_size=4) == 1
    assert generate(captioner, 2, batch_size=4) == 1
    assert generate(captioner, 3, Greedy(max_new_tokens=4), batch_size=4) == 1  # an equal sampler
    assert generate(captioner, 4, batch_size=4) == 2
    assert generate(captioner, 1, batch_size=1) == 3  # not above the batch_size asked for


def test_each_sampler_and_input_shape_has_a_model_of_its_own(captioner):
    assert generate(captioner, 2) == 1
    assert generate(captioner, 2, Greedy(max_new_tokens=5)) == 2
    captioner.generate_batch(example_inputs(captioner.encoder, 2, key="images"), SAMPLER)
    assert len(captioner._generation) == 3


def test_compiling_the_captioner_drops_its_models(captioner):
    generate(captioner, 1)
    captioner.compile()
    assert len(captioner._generation) == 0


def test_generation_models_add_no_weights(captioner):
    before = [weight.path for weight in captioner.weights]
    generate(captioner, 1, Nucleus(max_new_tokens=3))
    assert [weight.path for weight in captioner.weights] == before


def test_padding_rows_do_not_change_what_is_drawn(captioner):
    inputs = example_inputs(captioner.encoder, 4)
    sampler = Nucleus(top_p=1.0, max_new_tokens=6, seed=3)
    four = captioner.generate_batch(inputs, sampler)
    fewer = {name: array[:2] for name, array in inputs.items()}
    two = captioner.generate_batch(fewer, sampler, batch_size=4)
    assert [row[0].tokens for row in two] == [row[0].tokens for row in four[:2]]


@pytest.mark.parametrize("rows", [2, 5])
def test_a_batch_is_padded_with_its_last_row(rows):
    array = np.arange(4).reshape(2, 2)
    filled = pad_rows(array, rows)
    np.testing.assert_array_equal(filled, [[0, 1]] + [[2, 3]] * (rows - 1))
