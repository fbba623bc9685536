"""Constraints on the next token, in decoded captions and on logits."""

from __future__ import annotations

import functools
import json
from pathlib import Path

import numpy as np
import pytest
from keras import ops

from effcap.samplers import Beam, Greedy, Nucleus
from effcap.samplers.constraints import constrain
from helpers.samplers_reference import (
    EOS,
    Toy,
    as_numpy,
    assert_captions,
    assert_token_scores,
    compiled,
    log_probs,
)

REFERENCE = Path(__file__).resolve().parents[1] / "data" / "prompt_reference.json"
ALL = [Greedy, Beam, functools.partial(Nucleus, seed=0)]


def greedy(toy, image, sampler):
    tokens, total = (), 0.0
    while len(tokens) < sampler.max_new_tokens and EOS not in tokens:
        logp = log_probs(toy.logits(image, tokens), tokens, sampler, toy.prefix(image))
        total += logp.max()
        tokens = (*tokens, int(logp.argmax()))
    return [(total, tokens)]


@pytest.mark.parametrize(
    "rules",
    [
        {},
        {"min_new_tokens": 4},
        {"min_new_tokens": 8},
        {"suppress_tokens": (1, 3)},
        {"suppress_tokens": (EOS,)},
        {"no_repeat_ngram_size": 1},
        {"no_repeat_ngram_size": 2},
        {"no_repeat_ngram_size": 3},
        {"no_repeat_ngram_size": 20},
        {"repetition_penalty": 2.0},
        {"repetition_penalty": 0.5},
        {
            "min_new_tokens": 8,
            "no_repeat_ngram_size": 1,
            "suppress_tokens": (2,),
            "repetition_penalty": 1.3,
        },
    ],
    ids=str,
)
def test_greedy_takes_the_most_probable_allowed_token(rules):
    toy = Toy(images=40, vocabulary=5, steps=8, seed=1, prompt_tokens=2)
    sampler = Greedy(max_new_tokens=8, **rules)
    hypotheses = toy.run(sampler)
    assert_token_scores(toy, hypotheses, sampler)
    for image in range(40):
        assert_captions(hypotheses, image, greedy(toy, image, sampler))


@pytest.mark.parametrize("sampler", ALL)
def test_no_ngram_of_the_given_size_occurs_twice(sampler):
    toy = Toy(images=20, vocabulary=4, steps=10, seed=2)
    for n in (1, 2, 3):
        hypotheses = toy.run(sampler(max_new_tokens=10, no_repeat_ngram_size=n, suppress_tokens=()))
        for tokens, length in zip(hypotheses.tokens[:, 0], hypotheses.lengths[:, 0], strict=True):
            ngrams = [tuple(tokens[i : i + n]) for i in range(length - n + 1)]
            assert len(ngrams) == len(set(ngrams))


@pytest.mark.parametrize("sampler", ALL)
def test_no_caption_is_shorter_than_min_new_tokens(sampler):
    toy = Toy(images=30, vocabulary=4, steps=8, seed=3)
    assert toy.run(sampler(max_new_tokens=8)).lengths.min() < 5
    assert toy.run(sampler(max_new_tokens=8, min_new_tokens=5)).lengths.min() == 5
    assert toy.run(sampler(max_new_tokens=8, min_new_tokens=8)).lengths.tolist() == [[8]] * 30


@pytest.mark.parametrize("sampler", ALL)
def test_suppressed_tokens_never_occur(sampler):
    toy = Toy(images=30, vocabulary=5, steps=8, seed=4)
    assert {2, 4} <= set(toy.run(sampler(max_new_tokens=8)).tokens.ravel().tolist())
    tokens = toy.run(sampler(max_new_tokens=8, suppress_tokens=[4, 2])).tokens
    assert not {2, 4} & set(tokens.ravel().tolist())


@pytest.mark.parametrize("sampler", ALL)
def test_captions_end_where_all_tokens_are_forbidden(sampler):
    # 3 words, none twice, and no eos before 6 tokens: all are forbidden after the third.
    toy = Toy(images=10, vocabulary=4, steps=8, seed=5)
    hypotheses = toy.run(sampler(max_new_tokens=8, no_repeat_ngram_size=1, min_new_tokens=6))
    assert hypotheses.lengths.tolist() == [[3]] * 10
    assert np.isfinite(hypotheses.scores).all()
    hypotheses = toy.run(sampler(max_new_tokens=8, suppress_tokens=(0, 1, 2, 3)))
    assert hypotheses.lengths.tolist() == [[0]] * 10
    rules = Greedy(min_new_tokens=0)
    expected = [log_probs(toy.logits(i, ()), (), rules)[EOS] for i in range(10)]
    np.testing.assert_allclose(hypotheses.scores[:, 0], expected, rtol=1e-4)


@pytest.mark.parametrize("jit", [None, False, pytest.param(True, marks=pytest.mark.slow)])
@pytest.mark.parametrize(
    "sampler",
    [
        Greedy(max_new_tokens=6),
        Beam(
            max_new_tokens=6,
            num_beams=3,
            num_captions=2,
            repetition_penalty=1.2,
            no_repeat_ngram_size=2,
        ),
        Nucleus(max_new_tokens=6, seed=1),
    ],
    ids=["greedy", "beam", "nucleus"],
)
def test_nan_logits_of_one_image_do_not_affect_the_others(sampler, jit):
    toy = Toy(images=5, vocabulary=6, steps=6, seed=6)
    expected = toy.run(sampler)
    is_nan = np.zeros((5 * sampler.rows_per_image, 1), "bool")
    is_nan[2 * sampler.rows_per_image : 3 * sampler.rows_per_image] = True

    def step(tokens, position, state):
        logits, state = toy.step(tokens, position, state)
        return ops.where(ops.convert_to_tensor(is_nan), float("nan"), logits), state

    def run():
        return sampler(step, toy.prompt, toy.state, eos=EOS)

    program = run if jit is None else compiled(run, jit)
    if program is None:
        pytest.skip("this backend cannot compile that way")
    hypotheses = as_numpy(program())
    others = [0, 1, 3, 4]
    np.testing.assert_array_equal(hypotheses.tokens[others], expected.tokens[others])
    np.testing.assert_allclose(hypotheses.scores[others], expected.scores[others], rtol=1e-5)
    assert hypotheses.lengths[2, 0] == 0
    assert hypotheses.scores[2, 0] == -10_000


@pytest.mark.parametrize("sampler", ALL)
def test_nan_logits_are_forbidden_and_infinite_ones_certain(sampler):
    def step(tokens, position, state):
        ended = ops.cast(tokens == 2, "float32")[:, None]
        first = ops.convert_to_tensor(np.array([[-np.inf, np.nan, np.inf, 3.0]], "float32"))
        then = ops.convert_to_tensor(np.array([[9.0, np.nan, -np.inf, 9.0]], "float32"))
        return ops.where(ended > 0, then, first), state

    hypotheses = as_numpy(sampler(max_new_tokens=4, suppress_tokens=(3,))(step, [[3]], (), eos=EOS))
    assert hypotheses.tokens[0, 0].tolist() == [2, 0, 0, 0]
    np.testing.assert_allclose(hypotheses.scores[0, 0], np.log(0.5), rtol=1e-5)


def test_repetition_penalty_divides_positive_and_multiplies_negative_logits():
    logits = np.array([[1.0, 2.0, -2.0, 3.0, -1.0]], "float32")
    tokens = np.array([[1, 2, 1, 4]], "int32")  # the 4 is not generated yet
    next_token = constrain(
        Greedy(repetition_penalty=2.0),
        ops.convert_to_tensor(logits),
        ops.convert_to_tensor(tokens),
        ops.convert_to_tensor(3, "int32"),
        EOS,
        repetition_penalty=2.0,
    )
    changed = ops.convert_to_numpy(next_token.logits)[0]
    np.testing.assert_allclose(changed, [1.0, 1.0, -4.0, 3.0, -1.0])
    np.testing.assert_allclose(
        ops.convert_to_numpy(next_token.normalizer)[0, 0], np.log(np.exp(changed).sum()), rtol=1e-6
    )


def test_lengths_do_not_count_the_prompt():
    toy = Toy(images=20, vocabulary=3, steps=4, seed=7, prompt_tokens=3)
    hypotheses = toy.run(Greedy(max_new_tokens=4, min_new_tokens=4))
    assert (hypotheses.lengths == 4).all()


def test_the_start_token_may_be_generated_but_the_prefix_not_repeated():
    toy = Toy(images=20, vocabulary=4, steps=4, seed=7, prompt_tokens=2)
    hypotheses = toy.run(Greedy(max_new_tokens=4, no_repeat_ngram_size=1))
    generated = np.arange(4) < hypotheses.lengths  # (B,T)
    tokens = np.where(generated, hypotheses.tokens[:, 0], -1)
    assert (tokens == toy.prompt[:, :1]).any()
    assert not (tokens == toy.prompt[:, 1:]).any()


def test_constraints_after_a_prompt_are_those_of_transformers():
    reference = json.loads(REFERENCE.read_text())
    table = ops.convert_to_tensor(np.array(reference["logits"], "float32"))
    cases = {}
    for prefix, options, tokens, score in reference["cases"]:
        cases.setdefault(tuple(options.items()), []).append((prefix, tokens, score))
    for options, expected in cases.items():
        sampler = (Beam if "num_beams" in dict(options) else Greedy)(
            max_new_tokens=12, **dict(options)
        )
        prompt = [[11, *prefix] for prefix, _, _ in expected]
        hypotheses = as_numpy(
            sampler(
                lambda token, _, state: (ops.take(table, token, axis=0), state), prompt, (), eos=0
            )
        )
        for row, (_, tokens, score) in enumerate(expected):
            assert tokens[-1] == EOS, "truncated captions are ranked in another way"
            length = hypotheses.lengths[row, 0]
            assert hypotheses.tokens[row, 0, :length].tolist() == tokens[:-1], (options, row)
            if not {"no_repeat_ngram_size", "min_new_tokens"} & {*dict(options)}:
                penalty = len(tokens) ** getattr(sampler, "length_penalty", 0)
                np.testing.assert_allclose(hypotheses.scores[row, 0] / penalty, score, atol=1e-4)
