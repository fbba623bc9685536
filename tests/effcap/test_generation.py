"""Tests of effcap.generation: compiled generation models and their reuse."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import keras
import numpy as np
import pytest

from effcap.captioner import Captioner
from effcap.generation_call import pad_rows
from effcap.samplers import Greedy, Nucleus
from helpers.captioners import count_traces, example_inputs

SAMPLER = Greedy(max_new_tokens=4)


def generate(captioner: Captioner, rows: int, sampler=SAMPLER, **arguments) -> int:
    """Captions `rows` inputs and returns the number of models compiled so far."""
    inputs = example_inputs(captioner.encoder, rows)
    assert len(captioner.generate_batch(inputs, sampler, **arguments)) == rows
    return len(captioner._generation)


@pytest.mark.slow
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


def test_other_seeds_and_numbers_of_a_sampler_use_the_same_model(captioner, monkeypatch):
    traces = count_traces(monkeypatch)
    for seed in range(6):
        sampler = Nucleus(top_p=0.5 + seed / 20, temperature=1 + seed, seed=seed, max_new_tokens=4)
        assert generate(captioner, 2, sampler) == 1
    assert len(traces) == 1 or keras.backend.backend() == "torch"


@pytest.mark.slow
def test_only_the_models_used_last_are_kept(captioner, monkeypatch):
    monkeypatch.setattr("effcap.generation.MAX_MODELS", 2)
    samplers = [Greedy(max_new_tokens=length) for length in (1, 2, 3)]
    for index, kept in ((0, 1), (1, 2), (0, 2), (2, 2)):
        assert generate(captioner, 1, samplers[index]) == kept
    assert {key[0] for key in captioner._generation._models} == {samplers[0], samplers[2]}


def test_several_threads_can_generate_at_the_same_time(captioner):
    inputs = example_inputs(captioner.encoder, 2)
    samplers = [Greedy(max_new_tokens=4), Nucleus(max_new_tokens=4, seed=1)] * 6
    with ThreadPoolExecutor(6) as pool:
        captions = list(pool.map(lambda one: captioner.generate_batch(inputs, one), samplers))
    assert captions == captions[:2] * 6


def test_compiling_the_captioner_drops_its_models(captioner):
    generate(captioner, 1)
    captioner.compile()
    assert len(captioner._generation) == 0


def test_generation_models_add_no_weights(captioner):
    before = [weight.path for weight in captioner.weights]
    generate(captioner, 1, Nucleus(max_new_tokens=3))
    assert [weight.path for weight in captioner.weights] == before


@pytest.mark.slow
def test_a_seed_draws_for_each_photo_whatever_the_batch_size(captioner):
    photos = [np.full((32, 32, 3), 99, np.uint8)] * 12
    sampler = Nucleus(top_p=1.0, max_new_tokens=6, seed=3)
    captions = captioner.generate(photos, sampler, batch_size=4)
    assert len(set(captions)) == 12
    assert captioner.generate(photos, sampler, batch_size=5) == captions
    assert captioner.generate(photos[:7], sampler, batch_size=12) == captions[:7]


@pytest.mark.parametrize("rows", [2, 5])
def test_a_batch_is_padded_with_its_last_row(rows):
    array = np.arange(4).reshape(2, 2)
    filled = pad_rows(array, rows)
    np.testing.assert_array_equal(filled, [[0, 1]] + [[2, 3]] * (rows - 1))
