"""Beam search against brute force and against a reference search without early exit."""

from __future__ import annotations

import keras
import numpy as np
import pytest
from keras import ops

from effcap.samplers import Beam, Greedy, Nucleus
from helpers.samplers_reference import (
    EOS,
    Toy,
    all_captions,
    as_numpy,
    assert_captions,
    assert_token_scores,
    beam_search,
    compiled,
    ranked,
)

RULES = [
    {},
    {"min_new_tokens": 0},
    {"min_new_tokens": 2},
    {"suppress_tokens": (2,)},
    {"no_repeat_ngram_size": 1},
    {"no_repeat_ngram_size": 2},
    {"repetition_penalty": 1.7},
    {
        "min_new_tokens": 3,
        "suppress_tokens": (1,),
        "no_repeat_ngram_size": 2,
        "repetition_penalty": 0.6,
    },
]


@pytest.mark.parametrize("rules", RULES, ids=str)
@pytest.mark.parametrize("length_penalty", [1.0, 0.0, 2.5, -0.7])
def test_wide_beam_finds_the_best_captions_of_all(rules, length_penalty):
    toy = Toy(images=10, vocabulary=4, steps=4, seed=1)
    sampler = Beam(
        num_beams=64, num_captions=3, max_new_tokens=4, length_penalty=length_penalty, **rules
    )
    hypotheses = toy.run(sampler)
    assert_token_scores(toy, hypotheses, sampler)
    for image in range(10):
        complete, cut = all_captions(toy, image, sampler)
        best = ranked([*complete.items(), *cut.items()], length_penalty)[:3]
        expected = [(total, tokens) for _, _, tokens, total in best]
        assert_captions(hypotheses, image, expected)


@pytest.mark.parametrize("rules", [{}, {"no_repeat_ngram_size": 2, "repetition_penalty": 1.4}])
def test_wide_beam_finds_the_best_continuations_of_a_prompt(rules):
    toy = Toy(images=8, vocabulary=4, steps=4, seed=12, prompt_tokens=4)
    sampler = Beam(num_beams=64, num_captions=3, max_new_tokens=4, **rules)
    hypotheses = toy.run(sampler)
    assert_token_scores(toy, hypotheses, sampler)
    for image in range(8):
        complete, cut = all_captions(toy, image, sampler)
        best = ranked([*complete.items(), *cut.items()], sampler.length_penalty)[:3]
        expected = [(total, tokens) for _, _, tokens, total in best]
        assert_captions(hypotheses, image, expected)


@pytest.mark.parametrize("rules", RULES, ids=str)
@pytest.mark.parametrize(
    "beams, captions, length_penalty",
    [(1, 1, 1.0), (2, 1, 0.0), (3, 3, 3.0), (4, 2, -1.0), (5, 2, 0.7)],
)
def test_narrow_beam_equals_the_search_without_early_exit(beams, captions, length_penalty, rules):
    toy = Toy(images=24, vocabulary=6, steps=6, seed=2)
    sampler = Beam(
        num_beams=beams,
        num_captions=captions,
        max_new_tokens=6,
        length_penalty=length_penalty,
        **rules,
    )
    hypotheses = toy.run(sampler)
    assert_token_scores(toy, hypotheses, sampler)
    for image in range(24):
        assert_captions(hypotheses, image, beam_search(toy, image, sampler))


@pytest.mark.parametrize("beams, groups, captions", [(4, 2, 2), (6, 3, 5), (4, 4, 4), (6, 2, 6)])
@pytest.mark.parametrize("diversity", [0.0, 0.4, 3.0])
def test_diverse_beam_equals_the_reference_search(beams, groups, captions, diversity):
    toy = Toy(images=16, vocabulary=6, steps=6, seed=3)
    sampler = Beam(
        num_beams=beams,
        num_beam_groups=groups,
        num_captions=captions,
        diversity_penalty=diversity,
        max_new_tokens=6,
    )
    hypotheses = toy.run(sampler)
    assert_token_scores(toy, hypotheses, sampler)
    for image in range(16):
        assert_captions(hypotheses, image, beam_search(toy, image, sampler))


def test_diversity_penalty_makes_captions_differ():
    toy = Toy(images=32, vocabulary=8, steps=6, seed=4)
    firsts = {}
    for diversity in (0.0, 5.0):
        tokens = toy.run(
            Beam(
                num_beams=4,
                num_beam_groups=4,
                num_captions=4,
                diversity_penalty=diversity,
                max_new_tokens=6,
            )
        ).tokens
        firsts[diversity] = np.mean([len(set(image[:, 0].tolist())) for image in tokens])
    assert firsts[0.0] == 1.0
    assert firsts[5.0] > 2.5


def test_groups_without_penalty_return_the_captions_of_one_group():
    toy = Toy(images=8, vocabulary=6, steps=6, seed=5)
    one = toy.run(Beam(num_beams=2, max_new_tokens=6))
    three = toy.run(Beam(num_beams=6, num_beam_groups=3, max_new_tokens=6))
    np.testing.assert_array_equal(one.tokens, three.tokens)


def chain(probabilities):
    """Returns a step whose next-token probabilities depend only on the last token."""
    with np.errstate(divide="ignore"):
        table = np.log(np.array(probabilities, "float32"))

    def step(tokens, position, state):
        return ops.take(ops.convert_to_tensor(table), tokens, axis=0), state

    return step


@pytest.mark.parametrize("beams", [2, 3, 5])
def test_finished_beams_survive_longer_unfinished_ones(beams):
    # 1 eos has probability 0.60; 2 3 3 3 ... never ends and has 0.398.
    step = chain(
        [
            [0.00, 0.60, 0.40, 0.00],
            [1.00, 0.00, 0.00, 0.00],
            [0.005, 0.00, 0.00, 0.995],
            [0.00, 0.00, 0.00, 1.00],
        ]
    )
    for max_new_tokens in (2, 3, 8):
        sampler = Beam(num_beams=beams, length_penalty=0.0, max_new_tokens=max_new_tokens)
        hypotheses = as_numpy(sampler(step, [[EOS]], (), eos=EOS))
        assert hypotheses.tokens[0, 0].tolist() == [1] + [EOS] * (max_new_tokens - 1)
        np.testing.assert_allclose(np.exp(hypotheses.scores[0, 0]), 0.60, rtol=1e-5)


def test_finished_captions_come_before_truncated_ones_of_higher_score():
    step = chain([[0.0, 1.0, 0.0], [0.1, 0.0, 0.9], [0.0, 0.0, 1.0]])
    hypotheses = as_numpy(
        Beam(num_beams=2, num_captions=2, max_new_tokens=5)(step, [[EOS]], (), eos=EOS)
    )
    assert hypotheses.lengths.tolist() == [[1, 5]]
    assert hypotheses.scores[0, 1] > hypotheses.scores[0, 0]


@pytest.mark.parametrize("share", (0.1, 0.6))
def test_empty_captions_are_generated_only_if_asked_for(share):
    step = chain([[share, 1 - share], [0.0, 1.0]])  # "1 1 1 ..." never ends
    for sampler in (Greedy, Beam, Nucleus):
        hypotheses = as_numpy(sampler(max_new_tokens=5)(step, [[EOS]], (), eos=EOS))
        assert hypotheses.lengths.tolist() == [[5]]
    asked = Beam(max_new_tokens=5, min_new_tokens=0, length_penalty=0.0)
    hypotheses = as_numpy(asked(step, [[EOS]], (), eos=EOS))
    assert hypotheses.lengths.tolist() == [[5 if share < 0.5 else 0]]
    np.testing.assert_allclose(np.exp(hypotheses.scores), [[max(share, 1 - share)]], rtol=1e-5)


def test_one_beam_is_greedy_decoding():
    toy = Toy(images=32, vocabulary=6, steps=6, seed=11)
    for rules in RULES:
        greedy = toy.run(Greedy(max_new_tokens=6, **rules))
        beam = toy.run(Beam(num_beams=1, max_new_tokens=6, **rules))
        for one, other in zip(greedy, beam, strict=True):
            np.testing.assert_array_equal(one, other)


def test_more_steps_never_lower_the_best_score():
    toy = Toy(images=64, vocabulary=6, steps=8, seed=6)
    before = np.full(64, -np.inf)
    for max_new_tokens in range(1, 9):
        hypotheses = toy.run(Beam(num_beams=3, length_penalty=0.0, max_new_tokens=max_new_tokens))
        complete = hypotheses.lengths[:, 0] < max_new_tokens
        scores = np.where(complete, hypotheses.scores[:, 0], -np.inf)
        assert (scores >= before).all()
        before = scores
    assert np.isfinite(before).mean() > 0.9


def test_search_stops_when_no_hypothesis_can_improve():
    # "1 eos" has 0.9, all other captions together 0.1.
    step = chain([[0.0, 0.9, 0.1], [0.99, 0.0, 0.01], [0.0, 0.0, 1.0]])
    calls = []

    def counted(*args):
        calls.append(args[1])
        return step(*args)

    if keras.backend.backend() == "jax":
        pytest.skip("jax traces the loop outside jit too, so steps cannot be counted")
    Beam(num_beams=2, length_penalty=0.0, max_new_tokens=30)(counted, [[EOS]], (), eos=EOS)
    assert len(calls) == 2


def test_search_continues_while_a_longer_hypothesis_can_improve():
    # "1 eos" has 0.6 and a mean of log(0.6) / 2; "2 3 3 3 3 3 3 eos" has 0.4 and log(0.4) / 8.
    with np.errstate(divide="ignore"):
        early = np.log(
            np.array([[0, 0.6, 0.4, 0], [1, 0, 0, 0], [0, 0, 0, 1], [0, 0, 0, 1]], "float32")
        )
        late = np.log(np.array([[1.0, 0.0, 0.0, 0.0]], "float32"))

    def step(tokens, position, state):
        logits = ops.take(ops.convert_to_tensor(early), tokens, axis=0)
        return ops.where(position < 7, logits, ops.convert_to_tensor(late)), state

    hypotheses = as_numpy(
        Beam(num_beams=2, length_penalty=1.0, max_new_tokens=12)(step, [[EOS]], (), eos=EOS)
    )
    assert hypotheses.tokens[0, 0].tolist() == [2, 3, 3, 3, 3, 3, 3] + [EOS] * 5
    np.testing.assert_allclose(hypotheses.scores[0, 0], np.log(0.4), rtol=1e-5)


def test_negative_penalty_continues_while_the_next_length_can_improve():
    step = chain([[0.3, 0.7], [0.9, 0.1]])
    sampler = Beam(num_beams=2, length_penalty=-1.0, max_new_tokens=10)
    hypotheses = as_numpy(sampler(step, [[EOS]], (), eos=EOS))
    assert hypotheses.lengths[0, 0] == 1
    np.testing.assert_allclose(hypotheses.scores[0, 0], np.log(0.7 * 0.9), rtol=1e-5)


def test_captions_are_independent_of_other_images_in_the_batch():
    toy = Toy(images=10, vocabulary=6, steps=6, seed=7)
    together = toy.run(Beam(num_beams=3, num_captions=2, max_new_tokens=6))
    for image in range(10):
        alone = as_numpy(
            Beam(num_beams=3, num_captions=2, max_new_tokens=6)(
                toy.step,
                toy.prompt[image : image + 1],
                keras.tree.map_structure(lambda tensor, i=image: tensor[i : i + 1], toy.state),
                eos=EOS,
            )
        )
        np.testing.assert_array_equal(alone.tokens[0], together.tokens[image])
        np.testing.assert_allclose(alone.scores[0], together.scores[image], rtol=1e-5)


@pytest.mark.parametrize(
    "sampler", [Greedy(max_new_tokens=6), Beam(num_captions=3, max_new_tokens=6)]
)
def test_permuted_images_give_permuted_captions(sampler):
    toy = Toy(images=10, vocabulary=6, steps=6, seed=8)
    order = np.random.default_rng(0).permutation(10)
    straight = toy.run(sampler)
    state = keras.tree.map_structure(lambda tensor: tensor[order], toy.state)
    permuted = as_numpy(sampler(toy.step, toy.prompt[order], state, eos=EOS))
    for one, other in zip(straight, permuted, strict=True):
        np.testing.assert_array_equal(one[order], other)


def test_ties_prefer_the_better_hypothesis_then_the_lower_token():
    def step(tokens, position, state):
        return ops.zeros((tokens.shape[0], 5)), state

    sampler = Beam(num_beams=3, num_captions=3, max_new_tokens=2, min_new_tokens=2)
    hypotheses = as_numpy(sampler(step, [[EOS]], (), eos=EOS))
    assert hypotheses.tokens[0].tolist() == [[1, 1], [1, 2], [1, 3]]


def test_vocabulary_may_be_smaller_than_num_beams():
    toy = Toy(images=20, vocabulary=3, steps=3, seed=9)
    sampler = Beam(num_beams=8, num_captions=8, max_new_tokens=3)
    hypotheses = toy.run(sampler)
    assert_token_scores(toy, hypotheses, sampler)
    for image in range(20):
        assert_captions(hypotheses, image, beam_search(toy, image, sampler))


def test_slots_without_a_caption_are_empty():
    toy = Toy(images=2, vocabulary=3, steps=1, seed=10)
    hypotheses = toy.run(Beam(num_beams=8, num_captions=8, max_new_tokens=1))
    assert hypotheses.lengths.tolist() == [[1, 1, 0, 0, 0, 0, 0, 0]] * 2
    assert np.isfinite(hypotheses.scores).sum(1).tolist() == [2, 2]
    assert (hypotheses.tokens[:, 2:] == EOS).all()


@pytest.mark.parametrize("jit", [False, True])
@pytest.mark.parametrize(
    "sampler",
    [
        Beam(num_beams=3, num_captions=2, max_new_tokens=6),
        Beam(
            num_beams=4,
            num_beam_groups=2,
            diversity_penalty=0.5,
            num_captions=3,
            max_new_tokens=6,
            no_repeat_ngram_size=2,
            repetition_penalty=1.2,
            min_new_tokens=1,
            suppress_tokens=(3,),
            length_penalty=0.5,
        ),
    ],
    ids=["plain", "diverse"],
)
@pytest.mark.slow
def test_compiled_search_equals_eager_search(sampler, jit):
    toy = Toy(images=6, vocabulary=6, steps=6, seed=11, prompt_tokens=3)
    eager = toy.run(sampler)
    program = compiled(lambda: sampler(toy.step, toy.prompt, toy.state, eos=EOS), jit)
    if program is None:
        pytest.skip("this backend cannot compile that way")
    toy.calls = 0
    hypotheses = as_numpy(program())
    program()
    # jax may trace a loop twice.
    assert toy.calls <= (1 if keras.backend.backend() == "tensorflow" else 2)
    np.testing.assert_array_equal(hypotheses.tokens, eager.tokens)
    np.testing.assert_array_equal(hypotheses.lengths, eager.lengths)
    np.testing.assert_allclose(hypotheses.scores, eager.scores, rtol=1e-5)
