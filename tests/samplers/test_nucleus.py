"""Nucleus sampling: drawn tokens, their frequencies, and seeds."""

from __future__ import annotations

import keras
import numpy as np
import pytest
from keras import ops

from effcap.samplers import Greedy, Nucleus
from helpers.samplers_reference import EOS, Toy, as_numpy, assert_token_scores, compiled, log_probs

# Upper 0.1 % points of the chi-square distribution by degrees of freedom.
CRITICAL = {1: 10.83, 2: 13.82, 3: 16.27, 4: 18.47, 5: 20.52, 6: 22.46, 7: 24.32}


def fixed(logits):
    logits = np.asarray(logits, "float32")

    def step(tokens, position, state):
        row = ops.convert_to_tensor(logits)[None]
        return ops.repeat(row, tokens.shape[0], axis=0), state

    return step


def first_tokens(logits, draws=20_000, **fields):
    sampler = Nucleus(num_captions=draws, max_new_tokens=1, min_new_tokens=0, **fields)
    return as_numpy(sampler(fixed(logits), [[EOS]], (), eos=EOS)).tokens[0, :, 0]


def truncated(logits, top_p=1.0, top_k=0, temperature=1.0):
    """Returns the distribution after temperature, top-k and the nucleus, in that order."""
    probs = np.exp(np.asarray(logits, "float64") / temperature)
    order = np.argsort(-probs, kind="stable")[: top_k or None]
    share = probs[order] / probs[order].sum()
    number = 1 + int((np.cumsum(share) < top_p - 1e-9).sum())
    result = np.zeros(len(probs))
    result[order[:number]] = share[:number] / share[:number].sum()
    return result


LOGITS = np.random.default_rng(5).normal(size=8) * 1.5


@pytest.mark.parametrize(
    "fields",
    [
        {"top_p": 1.0},
        {"top_p": 0.9},
        {"top_p": 0.6},
        {"top_p": 1.0, "top_k": 3},
        {"top_p": 0.8, "top_k": 5},
        {"top_p": 1.0, "temperature": 0.5},
        {"top_p": 0.85, "temperature": 2.0},
        {"top_p": 0.7, "top_k": 6, "temperature": 1.5},
    ],
    ids=str,
)
def test_frequencies_match_the_truncated_distribution(fields):
    expected = truncated(LOGITS, **fields)
    draws = 20_000
    counts = np.bincount(first_tokens(LOGITS, draws, seed=3, **fields), minlength=8)
    possible = expected > 0
    assert counts[~possible].sum() == 0
    freedom = possible.sum() - 1
    assert freedom >= 1, "the case must have several possible tokens"
    wanted = expected[possible] * draws
    assert ((counts[possible] - wanted) ** 2 / wanted).sum() < CRITICAL[freedom]


def test_frequencies_match_in_a_large_vocabulary():
    # A nucleus of thousands of tokens, counted in 8 ranges of token ids.
    logits = np.random.default_rng(0).normal(size=4800) * 0.1
    for p in (0.01, 0.9, 1.0):
        expected = truncated(logits, top_p=p)
        tokens = first_tokens(logits, 1_000, top_p=p, seed=1)
        assert (expected[tokens] > 0).all()
        wanted = expected.reshape(8, -1).sum(1) * 1_000
        counts = np.bincount(tokens // 600, minlength=8)
        assert ((counts - wanted) ** 2 / wanted).sum() < CRITICAL[7]


def test_draws_are_independent_of_other_images_distributions():
    random = np.random.default_rng(0)
    peaked, flat = random.normal(size=(2, 4800)) * [[4.0], [0.1]]

    def draw(*logits):
        table = np.stack(logits).astype("float32")
        sampler = Nucleus(max_new_tokens=6, seed=1, top_p=0.95)
        prompt = np.zeros((len(logits), 1), "int32")

        def step(tokens, position, state):
            return ops.take(ops.convert_to_tensor(table), state, axis=0), state

        return as_numpy(sampler(step, prompt, np.arange(len(logits)), eos=EOS))

    alone, together = draw(peaked), draw(peaked, flat)
    np.testing.assert_array_equal(alone.tokens[0], together.tokens[0])


def test_nucleus_is_the_smallest_set_that_reaches_top_p():
    logits = np.log([0.1, 0.4, 0.2, 0.3])
    for p, tokens in [(0.05, {1}), (0.39, {1}), (0.41, {1, 3}), (0.69, {1, 3}), (0.71, {1, 2, 3})]:
        assert set(first_tokens(logits, 500, top_p=p, seed=0).tolist()) == tokens


def test_of_equal_tokens_the_lower_ids_are_kept():
    assert set(first_tokens(np.zeros(10), 500, top_p=0.25, seed=0).tolist()) == {0, 1, 2}
    assert set(first_tokens(np.zeros(10), 500, top_p=1.0, top_k=4, seed=0).tolist()) == {0, 1, 2, 3}


@pytest.mark.parametrize("fields", [{"top_p": 1e-6}, {"top_k": 1}, {"temperature": 1e-4}], ids=str)
def test_extreme_truncation_equals_greedy_decoding(fields):
    toy = Toy(images=12, vocabulary=6, steps=6, seed=1)
    greedy = toy.run(Greedy(max_new_tokens=6))
    drawn = toy.run(Nucleus(max_new_tokens=6, num_captions=2, seed=2, **fields))
    for caption in range(2):
        np.testing.assert_array_equal(drawn.tokens[:, caption], greedy.tokens[:, 0])
        np.testing.assert_allclose(drawn.scores[:, caption], greedy.scores[:, 0], rtol=1e-5)


@pytest.mark.parametrize("p", [0.9, 1.0])
def test_score_is_the_log_probability_under_the_model(p):
    toy = Toy(images=6, vocabulary=6, steps=6, seed=3)
    rules = {
        "no_repeat_ngram_size": 2,
        "repetition_penalty": 1.4,
        "suppress_tokens": (4,),
        "min_new_tokens": 2,
    }
    sampler = Nucleus(max_new_tokens=6, num_captions=5, top_p=p, temperature=1.7, seed=0, **rules)
    hypotheses = toy.run(sampler)
    assert_token_scores(toy, hypotheses, sampler)
    for image in range(6):
        for tokens, length, total in zip(
            hypotheses.tokens[image],
            hypotheses.lengths[image],
            hypotheses.scores[image],
            strict=True,
        ):
            generated = tokens[: min(length + 1, 6)].tolist()
            expected = sum(
                log_probs(toy.logits(image, generated[:i]), generated[:i], sampler)[token]
                for i, token in enumerate(generated)
            )
            np.testing.assert_allclose(total, expected, rtol=1e-4, atol=1e-5)


def test_integer_seed_determines_the_captions():
    toy = Toy(images=8, vocabulary=6, steps=6, seed=4)
    one, again, other = (
        toy.run(Nucleus(num_captions=3, max_new_tokens=6, seed=seed)).tokens for seed in (7, 7, 8)
    )
    np.testing.assert_array_equal(one, again)
    assert (one != other).any()


def test_captions_depend_on_the_seed_and_the_index_of_the_image_only():
    toy = Toy(images=8, vocabulary=6, steps=6, seed=4)
    sampler = Nucleus(num_captions=2, max_new_tokens=6, seed=7)
    state = keras.tree.map_structure(lambda tensor: tensor[3:6], toy.state)
    inputs = sampler.inputs(range(3, 6))
    fewer = as_numpy(sampler(toy.step, toy.prompt[3:6], state, eos=EOS, inputs=inputs))
    np.testing.assert_array_equal(fewer.tokens, toy.run(sampler).tokens[3:6])
    noise = sampler.inputs(range(1000))["noise"]
    assert noise.shape == (1000, 2, 6) and len(np.unique(noise)) > 11_990


def test_seed_generator_gives_new_captions_at_every_call():
    toy = Toy(images=8, vocabulary=6, steps=6, seed=4)
    for sampler in (
        Nucleus(num_captions=3, max_new_tokens=6, seed=keras.random.SeedGenerator(1)),
        Nucleus(num_captions=3, max_new_tokens=6),
    ):
        assert (toy.run(sampler).tokens != toy.run(sampler).tokens).any()
    first = [
        toy.run(Nucleus(max_new_tokens=6, seed=keras.random.SeedGenerator(1))).tokens for _ in "ab"
    ]
    np.testing.assert_array_equal(*first)


def test_captions_of_an_image_are_drawn_independently():
    tokens = first_tokens(LOGITS, 1000, top_p=1.0, seed=0)
    assert len(set(tokens.tolist())) > 4
    toy = Toy(images=2, vocabulary=6, steps=6, seed=5)
    assert (
        len({tuple(row) for row in toy.run(Nucleus(num_captions=20, max_new_tokens=6)).tokens[0]})
        > 5
    )


@pytest.mark.parametrize("jit", [False, True])
@pytest.mark.parametrize("p", [0.9, 1.0])
def test_integer_seed_gives_the_same_captions_when_compiled(jit, p):
    toy = Toy(images=4, vocabulary=6, steps=6, seed=6, prompt_tokens=2)
    sampler = Nucleus(num_captions=3, max_new_tokens=6, seed=9, top_p=p)
    program = compiled(lambda: sampler(toy.step, toy.prompt, toy.state, eos=EOS), jit)
    if program is None:
        pytest.skip("this backend cannot compile that way")
    hypotheses = as_numpy(program())
    np.testing.assert_array_equal(hypotheses.tokens, toy.run(sampler).tokens)
    np.testing.assert_array_equal(hypotheses.tokens, as_numpy(program()).tokens)


@pytest.mark.parametrize("jit", [False, True])
def test_seed_generator_gives_new_captions_when_compiled(jit):
    if keras.backend.backend() != "tensorflow":
        pytest.skip("requires TensorFlow, which updates variables in compiled functions")
    toy = Toy(images=8, vocabulary=6, steps=6, seed=6)
    sampler = Nucleus(num_captions=3, max_new_tokens=6)
    program = compiled(lambda: sampler(toy.step, toy.prompt, toy.state, eos=EOS), jit)
    assert (as_numpy(program()).tokens != as_numpy(program()).tokens).any()


def test_seed_generator_gives_new_captions_under_jax_jit():
    if keras.backend.backend() != "jax":
        pytest.skip("requires jax")
    import jax

    toy = Toy(images=8, vocabulary=6, steps=6, seed=6)
    generator = keras.random.SeedGenerator(3)
    sampler = Nucleus(num_captions=3, max_new_tokens=6, seed=generator)

    @jax.jit
    def program(seed_state):
        with keras.StatelessScope([(generator.state, seed_state)]) as scope:
            hypotheses = sampler(toy.step, toy.prompt, toy.state, eos=EOS)
        return hypotheses, scope.get_current_value(generator.state)

    one, seed_state = program(generator.state.value)
    other, _ = program(seed_state)
    assert (as_numpy(one).tokens != as_numpy(other).tokens).any()
