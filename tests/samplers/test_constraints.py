"""The rules on the next token, seen from greedy decoding and from the logits themselves."""

from __future__ import annotations

import functools

import numpy as np
import pytest
from helpers.samplers_reference import EOS, Toy, as_numpy, assert_captions, compiled, log_probs
from keras import ops

from effcap.samplers import Beam, Greedy, Nucleus
from effcap.samplers.constraints import constrain

ALL = [Greedy, Beam, functools.partial(Nucleus, seed=0)]


def greedy(toy, image, sampler):
    tokens, total = (), 0.0
    while len(tokens) < sampler.max_tokens and EOS not in tokens:
        logp = log_probs(toy.logits(image, tokens), tokens, sampler)
        total += logp.max()
        tokens = (*tokens, int(logp.argmax()))
    return [(total, tokens)]


@pytest.mark.parametrize(
    "rules",
    [
        {},
        {"min_tokens": 4},
        {"min_tokens": 8},
        {"suppress": (1, 3)},
        {"suppress": (EOS,)},
        {"no_repeat_ngram": 1},
        {"no_repeat_ngram": 2},
        {"no_repeat_ngram": 3},
        {"no_repeat_ngram": 20},
        {"repetition_penalty": 2.0},
        {"repetition_penalty": 0.5},
        {"min_tokens": 8, "no_repeat_ngram": 1, "suppress": (2,), "repetition_penalty": 1.3},
    ],
    ids=str,
)
def test_greedy_takes_the_most_probable_token_the_rules_allow(rules):
    toy = Toy(images=40, vocabulary=5, steps=8, seed=1, prompt_tokens=2)
    sampler = Greedy(max_tokens=8, **rules)
    samples = toy.run(sampler)
    for image in range(40):
        assert_captions(samples, image, greedy(toy, image, sampler))


@pytest.mark.parametrize("sampler", ALL)
def test_no_ngram_occurs_twice(sampler):
    toy = Toy(images=20, vocabulary=4, steps=10, seed=2)
    for n in (1, 2, 3):
        samples = toy.run(sampler(max_tokens=10, no_repeat_ngram=n, suppress=()))
        for tokens, length in zip(samples.tokens[:, 0], samples.lengths[:, 0], strict=True):
            ngrams = [tuple(tokens[i : i + n]) for i in range(length - n + 1)]
            assert len(ngrams) == len(set(ngrams))


@pytest.mark.parametrize("sampler", ALL)
def test_no_caption_is_shorter_than_min_tokens(sampler):
    toy = Toy(images=30, vocabulary=4, steps=8, seed=3)
    assert toy.run(sampler(max_tokens=8)).lengths.min() < 5
    assert toy.run(sampler(max_tokens=8, min_tokens=5)).lengths.min() == 5
    assert toy.run(sampler(max_tokens=8, min_tokens=8)).lengths.tolist() == [[8]] * 30


@pytest.mark.parametrize("sampler", ALL)
def test_suppressed_tokens_never_occur(sampler):
    toy = Toy(images=30, vocabulary=5, steps=8, seed=4)
    assert {2, 4} <= set(toy.run(sampler(max_tokens=8)).tokens.ravel().tolist())
    tokens = toy.run(sampler(max_tokens=8, suppress=[4, 2])).tokens
    assert not {2, 4} & set(tokens.ravel().tolist())


@pytest.mark.parametrize("sampler", ALL)
def test_caption_ends_where_nothing_is_left_to_choose(sampler):
    # 3 words, none twice, and no end before 6 tokens: after the third only eos is left.
    toy = Toy(images=10, vocabulary=4, steps=8, seed=5)
    samples = toy.run(sampler(max_tokens=8, no_repeat_ngram=1, min_tokens=6))
    assert samples.lengths.tolist() == [[3]] * 10
    assert np.isfinite(samples.scores).all()
    samples = toy.run(sampler(max_tokens=8, suppress=(0, 1, 2, 3)))
    assert samples.lengths.tolist() == [[0]] * 10
    expected = [log_probs(toy.logits(i, ()), (), Greedy())[EOS] for i in range(10)]
    np.testing.assert_allclose(samples.scores[:, 0], expected, rtol=1e-4)


@pytest.mark.parametrize("jit", [None, False, True])
@pytest.mark.parametrize(
    "sampler",
    [
        Greedy(max_tokens=6),
        Beam(max_tokens=6, beams=3, captions=2, repetition_penalty=1.2, no_repeat_ngram=2),
        Nucleus(max_tokens=6, seed=1),
    ],
    ids=["greedy", "beam", "nucleus"],
)
def test_nan_logits_of_one_image_leave_the_others_alone(sampler, jit):
    toy = Toy(images=5, vocabulary=6, steps=6, seed=6)
    healthy = toy.run(sampler)
    sick = np.zeros((5 * sampler.rows, 1), "bool")
    sick[2 * sampler.rows : 3 * sampler.rows] = True

    def step(tokens, position, state):
        logits, state = toy.step(tokens, position, state)
        return ops.where(ops.convert_to_tensor(sick), float("nan"), logits), state

    def run():
        return sampler(step, toy.prompt, toy.state, eos=EOS)

    program = run if jit is None else compiled(run, jit)
    if program is None:
        pytest.skip("the backend compiles in one way or none")
    samples = as_numpy(program())
    others = [0, 1, 3, 4]
    np.testing.assert_array_equal(samples.tokens[others], healthy.tokens[others])
    np.testing.assert_allclose(samples.scores[others], healthy.scores[others], rtol=1e-5)
    assert samples.lengths[2, 0] == 0
    assert samples.scores[2, 0] == -10_000


@pytest.mark.parametrize("sampler", ALL)
def test_single_nan_and_infinite_logits_have_a_meaning(sampler):
    def step(tokens, position, state):
        ended = ops.cast(tokens == 2, "float32")[:, None]
        first = ops.convert_to_tensor(np.array([[-np.inf, np.nan, np.inf, 3.0]], "float32"))
        then = ops.convert_to_tensor(np.array([[9.0, np.nan, -np.inf, 9.0]], "float32"))
        return ops.where(ended > 0, then, first), state

    samples = as_numpy(sampler(max_tokens=4, suppress=(3,))(step, [[3]], (), eos=EOS))
    assert samples.tokens[0, 0].tolist() == [2, 0, 0, 0]
    length = 2 ** sampler().length_penalty if sampler is Beam else 1
    expected = np.log(0.5) / length
    np.testing.assert_allclose(samples.scores[0, 0], expected, rtol=1e-5)


def test_repetition_penalty_divides_positive_and_multiplies_negative_logits():
    logits = np.array([[1.0, 2.0, -2.0, 3.0, -1.0]], "float32")
    tokens = np.array([[1, 2, 1, 4]], "int32")  # the 4 is not generated yet
    following = constrain(
        Greedy(repetition_penalty=2.0),
        ops.convert_to_tensor(logits),
        ops.convert_to_tensor(tokens),
        ops.convert_to_tensor(3, "int32"),
        EOS,
    )
    changed = ops.convert_to_numpy(following.logits)[0]
    np.testing.assert_allclose(changed, [1.0, 1.0, -4.0, 3.0, -1.0])
    np.testing.assert_allclose(
        ops.convert_to_numpy(following.normalizer)[0, 0], np.log(np.exp(changed).sum()), rtol=1e-6
    )


def test_prompt_is_free_of_the_rules():
    toy = Toy(images=20, vocabulary=3, steps=4, seed=7, prompt_tokens=3)
    samples = toy.run(Greedy(max_tokens=4, no_repeat_ngram=1, min_tokens=2))
    assert (samples.lengths == 2).all()
