"""Behavior common to all samplers: fields, prompt, state, shapes and errors."""

from __future__ import annotations

import dataclasses
import re

import keras
import numpy as np
import pytest
from keras import ops

from effcap.samplers import SAMPLERS, Beam, Greedy, Hypotheses, Nucleus, get
from helpers.samplers_reference import EOS, Toy, as_numpy, compiled

ALL = [
    Greedy(max_new_tokens=5),
    Beam(num_beams=4, num_captions=2, max_new_tokens=5),
    Nucleus(num_captions=3, max_new_tokens=5, seed=0),
]
each = pytest.mark.parametrize("sampler", ALL, ids=lambda sampler: type(sampler).__name__)


@each
def test_hypotheses_have_the_documented_shapes_and_dtypes(sampler):
    toy = Toy(images=3, vocabulary=5, steps=5)
    hypotheses = sampler(toy.step, toy.prompt, toy.state, eos=EOS)
    captions = getattr(sampler, "num_captions", 1)
    assert isinstance(hypotheses, Hypotheses)
    assert tuple(hypotheses.tokens.shape) == (3, captions, 5)
    assert tuple(hypotheses.scores.shape) == tuple(hypotheses.lengths.shape) == (3, captions)
    dtypes = [keras.backend.standardize_dtype(field.dtype) for field in hypotheses]
    assert dtypes == ["int32", "float32", "int32", "float32"]


@each
def test_tokens_after_the_end_are_eos(sampler):
    toy = Toy(images=40, vocabulary=5, steps=5)
    hypotheses = toy.run(sampler)
    generated = np.arange(5) < hypotheses.lengths[:, :, None]
    assert (hypotheses.tokens[generated] != EOS).all()
    assert (hypotheses.tokens[~generated] == EOS).all()
    assert len(set(hypotheses.lengths.ravel().tolist())) > 3


@each
def test_decoding_starts_with_the_last_token_of_the_prompt(sampler):
    states = []

    def step(tokens, position, state):
        # The state keeps one digit per token and one per position.
        state = (state[0] * 10 + tokens, state[1] * 10 + position)
        states.append(state)
        logits = ops.repeat(ops.convert_to_tensor([[0.0, 1.0, 9.0]]), tokens.shape[0], axis=0)
        return logits + 0 * ops.cast(state[0], "float32")[:, None], state

    if keras.backend.backend() == "jax":
        pytest.skip("jax has no concrete values inside the loop")
    sampler = dataclasses.replace(sampler, max_new_tokens=2)
    start = (np.array([78, 64], "int32"), np.array([1, 1], "int32"))
    sampler(step, np.array([[7, 8, 5], [6, 4, 3]]), start, eos=EOS)
    tokens, positions = (ops.convert_to_numpy(x) for x in states[-1])
    rows = sampler.rows_per_image
    assert len(states) == 2
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
def test_state_may_have_any_structure(sampler, nested, compile_too):
    toy = Toy(images=3, vocabulary=5, steps=5)
    table = ops.convert_to_tensor(np.random.default_rng(0).normal(size=(5, 5)).astype("float32"))
    cache = np.zeros((3, 2, 4), "float16")
    states = []

    def step(tokens, position, state):
        states.append(keras.tree.map_structure(lambda tensor: tuple(tensor.shape), state))
        return ops.take(table, tokens, axis=0), state

    def run():
        return sampler(step, toy.prompt, nested(cache), eos=EOS)

    hypotheses = as_numpy(run())
    assert states[0] == nested((3 * sampler.rows_per_image, 2, 4))
    program = compiled(run) if compile_too else None
    if program is not None:
        np.testing.assert_array_equal(as_numpy(program()).tokens, hypotheses.tokens)


@each
@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
def test_logits_may_have_half_precision(sampler, dtype):
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
        (lambda: Greedy(max_new_tokens=0), ValueError, "max_new_tokens=0"),
        (lambda: Greedy(max_new_tokens=2.5), TypeError, "max_new_tokens=2.5"),
        (lambda: Greedy(max_new_tokens=True), TypeError, "max_new_tokens=True"),
        (lambda: Greedy(min_new_tokens=-1), ValueError, "min_new_tokens=-1"),
        (
            lambda: Greedy(min_new_tokens=9, max_new_tokens=8),
            ValueError,
            "min_new_tokens=9, max_new_tokens=8",
        ),
        (lambda: Greedy(no_repeat_ngram_size=-2), ValueError, "no_repeat_ngram_size=-2"),
        (lambda: Greedy(repetition_penalty=0), ValueError, "repetition_penalty=0"),
        (lambda: Greedy(repetition_penalty="1"), TypeError, "repetition_penalty='1'"),
        (lambda: Greedy(suppress_tokens=(3, -1)), ValueError, r"suppress_tokens=\(3, -1\)"),
        (lambda: Greedy(suppress_tokens=(1.5,)), TypeError, r"suppress_tokens=\(1.5,\)"),
        (lambda: Greedy(suppress_tokens=7), TypeError, "suppress_tokens=7"),
        (lambda: Beam(num_beams=0), ValueError, "num_beams=0"),
        (lambda: Beam(num_beams=2, num_captions=3), ValueError, "num_captions=3, num_beams=2"),
        (lambda: Beam(num_captions=0), ValueError, "num_captions=0"),
        (
            lambda: Beam(num_beams=5, num_beam_groups=2),
            ValueError,
            "num_beams=5, num_beam_groups=2",
        ),
        (
            lambda: Beam(diversity_penalty=0.5),
            ValueError,
            "diversity_penalty=0.5, num_beam_groups=1",
        ),
        (
            lambda: Beam(num_beam_groups=5, diversity_penalty=-1.0),
            ValueError,
            "diversity_penalty=-1.0",
        ),
        (lambda: Beam(length_penalty=float("nan")), ValueError, "length_penalty=nan"),
        (lambda: Nucleus(top_p=0.0), ValueError, "top_p=0.0"),
        (lambda: Nucleus(top_p=1.1), ValueError, "top_p=1.1"),
        (lambda: Nucleus(top_k=-1), ValueError, "top_k=-1"),
        (lambda: Nucleus(temperature=0.0), ValueError, "temperature=0.0"),
        (lambda: Nucleus(num_captions=0), ValueError, "num_captions=0"),
        (lambda: Nucleus(seed="a"), TypeError, "seed='a'"),
        (lambda: Nucleus(seed=-1), ValueError, "seed=-1"),
    ],
)
def test_errors_name_invalid_fields_with_their_values(make, error, message):
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
def test_errors_name_invalid_arguments_with_their_values(change, error, message):
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
    with pytest.raises(ValueError, match=r"vocabulary size 5.*suppress_tokens=\(2, 5\)"):
        toy.run(Greedy(max_new_tokens=5, suppress_tokens=(5, 2)))


@pytest.mark.slow
@pytest.mark.parametrize(
    "samplers",
    (
        [Greedy(max_new_tokens=6, repetition_penalty=penalty) for penalty in (1.2, 3.0)],
        [Beam(max_new_tokens=6, length_penalty=penalty) for penalty in (0.0, 3.0)],
        [
            Beam(max_new_tokens=6, num_beam_groups=5, num_captions=5, diversity_penalty=penalty)
            for penalty in (0.4, 4.0)
        ],
        [
            Nucleus(max_new_tokens=6, seed=seed, top_p=0.5 + seed / 10, temperature=2.0 * seed)
            for seed in (1, 2)
        ],
    ),
)
def test_one_program_serves_samplers_that_differ_in_their_inputs(samplers):
    toy = Toy(images=8, vocabulary=6, steps=6, seed=12)
    captions = []
    for sampler in samplers:
        assert sampler.program() == samplers[0].program()
        received = toy.run(sampler.program(), inputs=sampler.inputs(range(8)))
        expected = toy.run(sampler)
        np.testing.assert_array_equal(received.tokens, expected.tokens)
        np.testing.assert_allclose(received.scores, expected.scores, rtol=1e-5)
        captions.append(received.tokens)
    assert (captions[0] != captions[1]).any()
    assert Greedy().program() != Greedy(repetition_penalty=1.2).program()  # nothing to compute


def test_get_returns_samplers_by_name_or_class():
    assert get("greedy", max_new_tokens=7) == get(Greedy, max_new_tokens=7)
    assert get("greedy", max_new_tokens=7) == Greedy(max_new_tokens=7)
    assert get("beam", num_beams=3, suppress_tokens=[4, 1]) == Beam(
        num_beams=3, suppress_tokens=(1, 4)
    )
    assert get("nucleus", top_p=0.5, seed=1) == Nucleus(top_p=0.5, seed=1)


def test_get_returns_a_given_sampler_unchanged():
    sampler = Beam(num_beams=3)
    assert get(sampler) is sampler
    with pytest.raises(ValueError, match="only for a sampler name.*num_beams=4"):
        get(sampler, num_beams=4)


def test_get_lists_the_available_names_and_fields():
    for name in ("top", None, [], int):
        with pytest.raises(ValueError, match=f"beam, greedy, nucleus.*{re.escape(repr(name))}"):
            get(name)
    with pytest.raises(ValueError, match="greedy sampler.*max_new_tokens.*num_beams=3"):
        get("greedy", num_beams=3)


@pytest.mark.parametrize("name", SAMPLERS)
def test_docstrings_describe_every_field(name):
    for sampler in SAMPLERS[name].__mro__[:-1]:
        own = [field for field in sampler.__annotations__ if not field.startswith("_")]
        described = re.findall(r"^        (\w+): ", sampler.__doc__, re.MULTILINE)
        assert described[: len(own)] == own


def test_samplers_are_frozen_and_take_keywords_only():
    with pytest.raises(dataclasses.FrozenInstanceError):
        Beam().num_beams = 3
    with pytest.raises(TypeError):
        Beam(3)
    assert len({Beam(num_beams=3), Beam(num_beams=3), Beam(num_beams=4)}) == 2
    assert dataclasses.replace(Nucleus(seed=1), top_p=0.5) == Nucleus(seed=1, top_p=0.5)
