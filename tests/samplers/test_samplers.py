"""What all samplers share: fields, prompt, state, shapes and errors."""

from __future__ import annotations

import dataclasses

import keras
import numpy as np
import pytest
from helpers.samplers_reference import EOS, Toy, as_numpy, compiled
from keras import ops

from effcap.samplers import Beam, Greedy, Nucleus, Samples, get

ALL = [
    Greedy(max_tokens=5),
    Beam(beams=4, captions=2, max_tokens=5),
    Nucleus(captions=3, max_tokens=5, seed=0),
]
each = pytest.mark.parametrize("sampler", ALL, ids=lambda sampler: type(sampler).__name__)


@each
def test_samples_have_the_documented_shapes_and_dtypes(sampler):
    toy = Toy(images=3, vocabulary=5, steps=5)
    samples = sampler(toy.step, toy.prompt, toy.state, eos=EOS)
    captions = getattr(sampler, "captions", 1)
    assert isinstance(samples, Samples)
    assert tuple(samples.tokens.shape) == (3, captions, 5)
    assert tuple(samples.scores.shape) == tuple(samples.lengths.shape) == (3, captions)
    dtypes = [keras.backend.standardize_dtype(part.dtype) for part in samples]
    assert dtypes == ["int32", "float32", "int32"]


@each
def test_places_from_the_end_on_hold_eos(sampler):
    toy = Toy(images=40, vocabulary=5, steps=5)
    samples = toy.run(sampler)
    generated = np.arange(5) < samples.lengths[:, :, None]
    assert (samples.tokens[generated] != EOS).all()
    assert (samples.tokens[~generated] == EOS).all()
    assert len(set(samples.lengths.ravel().tolist())) > 3


@each
def test_prompt_is_read_token_by_token_from_position_zero(sampler):
    seen = []

    def step(tokens, position, state):
        # A digit per token read and per position, kept in the state.
        state = (state[0] * 10 + tokens, state[1] * 10 + position)
        seen.append(state)
        logits = ops.repeat(ops.convert_to_tensor([[0.0, 1.0, 9.0]]), tokens.shape[0], axis=0)
        return logits + 0 * ops.cast(state[0], "float32")[:, None], state

    if keras.backend.backend() == "jax":
        pytest.skip("jax shows no values inside the loop")
    sampler = dataclasses.replace(sampler, max_tokens=2)
    start = (np.zeros(2, "int32"), np.zeros(2, "int32"))
    sampler(step, np.array([[7, 8, 5], [6, 4, 3]]), start, eos=EOS)
    tokens, positions = (ops.convert_to_numpy(part) for part in seen[-1])
    rows = sampler.rows
    assert len(seen) == 4
    assert set(positions.tolist()) == {123}
    assert set((tokens[:rows] // 10).tolist()) == {785}
    assert set((tokens[rows:] // 10).tolist()) == {643}
    assert len(tokens) == 2 * rows


@each
@pytest.mark.parametrize(
    "nested, compile_too",
    [
        (lambda x: (), True),
        (lambda x: {}, False),
        (lambda x: [], False),
        (lambda x: x, False),
        (lambda x: {"b": [x, (x,)], "a": {}}, True),
    ],
    ids=["tuple", "dict", "list", "tensor", "nested"],
)
def test_state_may_be_any_structure(sampler, nested, compile_too):
    toy = Toy(images=3, vocabulary=5, steps=5)
    table = ops.convert_to_tensor(np.random.default_rng(0).normal(size=(5, 5)).astype("float32"))
    cache = np.zeros((3, 2, 4), "float16")
    seen = []

    def step(tokens, position, state):
        seen.append(keras.tree.map_structure(lambda leaf: tuple(leaf.shape), state))
        return ops.take(table, tokens, axis=0), state

    def run():
        return sampler(step, toy.prompt, nested(cache), eos=EOS)

    samples = as_numpy(run())
    assert seen[0] == nested((3 * sampler.rows, 2, 4))
    program = compiled(run) if compile_too else None
    if program is not None:
        np.testing.assert_array_equal(as_numpy(program()).tokens, samples.tokens)


@each
@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
def test_logits_may_be_of_half_precision(sampler, dtype):
    toy = Toy(images=3, vocabulary=5, steps=5)
    toy.table = np.round(toy.table * 4) / 4  # exact in either dtype

    def step(tokens, position, state):
        logits, state = toy.step(tokens, position, state)
        return ops.cast(logits, dtype), state

    full = toy.run(sampler)
    half = as_numpy(sampler(step, toy.prompt, toy.state, eos=EOS))
    np.testing.assert_array_equal(half.tokens, full.tokens)
    np.testing.assert_allclose(half.scores, full.scores, rtol=1e-6)


@pytest.mark.parametrize(
    "make, error, message",
    [
        (lambda: Greedy(max_tokens=0), ValueError, "max_tokens=0"),
        (lambda: Greedy(max_tokens=2.5), TypeError, "max_tokens=2.5"),
        (lambda: Greedy(max_tokens=True), TypeError, "max_tokens=True"),
        (lambda: Greedy(min_tokens=-1), ValueError, "min_tokens=-1"),
        (lambda: Greedy(min_tokens=9, max_tokens=8), ValueError, "min_tokens=9, max_tokens=8"),
        (lambda: Greedy(no_repeat_ngram=-2), ValueError, "no_repeat_ngram=-2"),
        (lambda: Greedy(repetition_penalty=0), ValueError, "repetition_penalty=0"),
        (lambda: Greedy(repetition_penalty="1"), TypeError, "repetition_penalty='1'"),
        (lambda: Greedy(suppress=(3, -1)), ValueError, r"suppress=\(3, -1\)"),
        (lambda: Greedy(suppress=(1.5,)), TypeError, r"suppress=\(1.5,\)"),
        (lambda: Greedy(suppress=7), TypeError, "suppress=7"),
        (lambda: Beam(beams=0), ValueError, "beams=0"),
        (lambda: Beam(beams=2, captions=3), ValueError, "captions=3, beams=2"),
        (lambda: Beam(captions=0), ValueError, "captions=0"),
        (lambda: Beam(beams=5, groups=2), ValueError, "beams=5, groups=2"),
        (lambda: Beam(diversity=0.5), ValueError, "diversity=0.5, groups=1"),
        (lambda: Beam(groups=5, diversity=-1.0), ValueError, "diversity=-1.0"),
        (lambda: Beam(length_penalty=float("nan")), ValueError, "length_penalty=nan"),
        (lambda: Nucleus(p=0.0), ValueError, "p=0.0"),
        (lambda: Nucleus(p=1.1), ValueError, "p=1.1"),
        (lambda: Nucleus(k=-1), ValueError, "k=-1"),
        (lambda: Nucleus(temperature=0.0), ValueError, "temperature=0.0"),
        (lambda: Nucleus(captions=0), ValueError, "captions=0"),
        (lambda: Nucleus(seed="a"), TypeError, "seed='a'"),
        (lambda: Nucleus(seed=-1), ValueError, "seed=-1"),
    ],
)
def test_fields_out_of_range_are_named_with_their_value(make, error, message):
    with pytest.raises(error, match=message):
        make()


@pytest.mark.parametrize(
    "change, error, message",
    [
        ({"eos": 5}, ValueError, "vocabulary size 5.*eos=5"),
        ({"eos": -1}, ValueError, "eos=-1"),
        ({"eos": 1.0}, TypeError, "eos=1.0"),
        ({"prompt": [0, 1, 2]}, ValueError, r"shape \(3,\)"),
        ({"prompt": np.zeros((3, 0), "int32")}, ValueError, r"shape \(3, 0\)"),
        ({"prompt": np.zeros((3, 1), "float32")}, TypeError, "float32"),
        ({"state": {"cache": np.zeros((2, 4))}}, ValueError, r"shape \(2, 4\)"),
        ({"state": [None]}, ValueError, "None"),
        ({"step": lambda t, p, s: (ops.zeros((3, 5, 1)), s)}, ValueError, r"\(3, 5, 1\)"),
        ({"step": lambda t, p, s: (ops.zeros((2, 5)), s)}, ValueError, r"R=3.*\(2, 5\)"),
        ({"step": lambda t, p, s: (ops.zeros((3, 5)), [])}, ValueError, "structure"),
        (
            {"step": lambda t, p, s: (ops.zeros((3, 5)), {"cache": s["cache"][:, :1]})},
            ValueError,
            r"\(3, 2\) float32.*\(3, 1\) float32",
        ),
        (
            {"step": lambda t, p, s: (ops.zeros((3, 5)), {"cache": ops.cast(s["cache"], "int32")})},
            ValueError,
            r"\(3, 2\) float32.*\(3, 2\) int32",
        ),
    ],
)
def test_arguments_that_do_not_fit_are_named_with_their_value(change, error, message):
    arguments = {
        "step": lambda tokens, position, state: (ops.zeros((3, 5)), state),
        "prompt": np.zeros((3, 1), "int32"),
        "state": {"cache": np.zeros((3, 2), "float32")},
        "eos": EOS,
        **change,
    }
    with pytest.raises(error, match=message):
        Greedy()(**arguments)


def test_suppressed_ids_must_be_in_the_vocabulary():
    toy = Toy(images=3, vocabulary=5, steps=5)
    with pytest.raises(ValueError, match=r"vocabulary size 5.*suppress=\(2, 5\)"):
        toy.run(Greedy(max_tokens=5, suppress=(5, 2)))


def test_get_makes_samplers_by_name():
    assert get("greedy", max_tokens=7) == Greedy(max_tokens=7)
    assert get("beam", beams=3, suppress=[4, 1]) == Beam(beams=3, suppress=(1, 4))
    assert get("nucleus", p=0.5, seed=1) == Nucleus(p=0.5, seed=1)


def test_get_says_which_names_and_fields_there_are():
    with pytest.raises(ValueError, match="beam, greedy, nucleus.*'top'"):
        get("top")
    with pytest.raises(ValueError, match="greedy sampler.*max_tokens.*beams=3"):
        get("greedy", beams=3)


def test_samplers_are_frozen_values_with_keyword_fields():
    with pytest.raises(dataclasses.FrozenInstanceError):
        Beam().beams = 3
    with pytest.raises(TypeError):
        Beam(3)
    assert len({Beam(beams=3), Beam(beams=3), Beam(beams=4)}) == 2
    assert dataclasses.replace(Nucleus(seed=1), p=0.5) == Nucleus(seed=1, p=0.5)
