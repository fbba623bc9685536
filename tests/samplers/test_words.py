"""Words to include and exclude, against brute force over all texts of a toy vocabulary."""

from __future__ import annotations

import re
from collections import Counter
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
from keras import ops

from effcap.phrases.token_tables import Spelling, build_tables
from effcap.samplers import Beam, Greedy, Nucleus
from effcap.samplers.registry import from_config, to_config
from effcap.samplers.word_search import WordSearch
from helpers.samplers_reference import (
    EOS,
    Toy,
    all_captions,
    assert_captions,
    assert_token_scores,
    log_probs,
    ranked,
)

PIECES = ["", " ab", "c", " d", "."]  # the first is the end token
SPELLED = {"ab": [1], "abc": [1, 2], "d": [3], "d ab": [3, 1], "c": [2], "ab.": [1, 4]}


def text_of(tokens, prefix=()):
    return "".join(PIECES[token] for token in (*prefix, *tokens))


def occurs(phrase, text):
    last = r"(?!\w)" if phrase[-1] != "." else ""
    return re.search(rf"(?<!\w){re.escape(phrase)}{last}", text) is not None


def allowed(tokens, sampler, prefix=()):
    """Returns whether the text so far never contains an excluded phrase."""
    texts = [text_of(tokens[:end], prefix) for end in range(1, len(tokens) + 1)]
    return not any(occurs(phrase, text) for phrase in sampler.exclude for text in texts)


def num_unmet(tokens, sampler, prefix=()):
    text = text_of(tokens, prefix)
    return sum(not any(occurs(phrase, text) for phrase in group) for group in sampler.include)


def run(toy, sampler, program=False):
    """Runs a sampler with the tables of its words."""
    spellings = [
        Spelling(group, tuple(SPELLED[phrase]), None)
        for group, phrases in enumerate(sampler.include)
        for phrase in phrases
    ]
    pieces = [piece.encode() for piece in PIECES]
    tables = build_tables(sampler.include, sampler.exclude, pieces, EOS, spellings)
    images = range(len(toy.prompt))
    one = sampler.program() if program else sampler
    return toy.run(one, inputs={**sampler.inputs(images), **tables})


WORDS = [
    {"include": ["ab"]},
    {"include": ["d ab"]},
    {"include": ["abc", "d"], "no_repeat_ngram_size": 2},
    {"include": ["d|ab.", "c|ab"], "repetition_penalty": 1.5},
    {"include": [["ab"]], "exclude": ["d ab"], "min_new_tokens": 3},
    {"exclude": ["ab", "d"]},
    {"exclude": ["ab.", "d ab", "c"]},
]


@pytest.mark.parametrize(
    "words, prompt_tokens",
    [(WORDS[3], 3), (WORDS[4], 1)]
    + [
        pytest.param(words, prompt_tokens, marks=pytest.mark.slow)
        for words, prompt_tokens in ((WORDS[1], 3), (WORDS[2], 1), (WORDS[5], 1), (WORDS[6], 1))
    ],
    ids=str,
)
def test_wide_beam_finds_the_best_captions_with_the_words(words, prompt_tokens):
    toy = Toy(images=5, vocabulary=5, steps=4, seed=7, prompt_tokens=prompt_tokens)
    toy.prompt[toy.prompt == EOS] = 2
    history = np.zeros(5, "int32")
    for tokens in toy.prompt.T[:-1]:
        history = history * 6 + tokens + 1
    toy.state["history"] = history
    sampler = Beam(num_beams=64, num_captions=3, max_new_tokens=4, length_penalty=1.0, **words)
    hypotheses = run(toy, sampler)
    found = 0
    for image in range(5):
        prefix = toy.prefix(image)
        complete, cut = all_captions(toy, image, sampler)
        captions = [
            (tokens, total)
            for tokens, total in [*complete.items(), *cut.items()]
            if allowed(tokens, sampler, prefix) and not num_unmet(tokens, sampler, prefix)
        ]
        best = ranked(captions, 1.0)[:3]
        found += len(best)
        kept = type(hypotheses)(*(field[:, : len(best)] for field in hypotheses))
        assert_captions(kept, image, [(total, tokens) for _, _, tokens, total in best])
    assert found > 8
    assert_token_scores(toy, hypotheses, sampler)


@pytest.mark.parametrize(
    "sampler",
    [
        Beam(num_beams=3, num_captions=2, **WORDS[2]),
        Nucleus(num_captions=2, seed=1, **WORDS[2]),
        Nucleus(seed=1, top_k=2, temperature=0.5, **WORDS[4]),
        pytest.param(
            Beam(num_beams=6, num_beam_groups=2, diversity_penalty=0.5, num_captions=2, **WORDS[4]),
            marks=pytest.mark.slow,
        ),
        pytest.param(Greedy(**WORDS[4]), marks=pytest.mark.slow),
        pytest.param(Beam(num_beams=1, **WORDS[1]), marks=pytest.mark.slow),
        pytest.param(Nucleus(seed=1, **WORDS[1]), marks=pytest.mark.slow),
    ],
    ids=lambda sampler: type(sampler).__name__,
)
def test_captions_of_narrow_searches_have_the_words(sampler):
    toy = Toy(images=24, vocabulary=5, steps=8, seed=8)
    toy.prompt[:] = EOS
    sampler = replace(sampler, max_new_tokens=8)
    hypotheses = run(toy, sampler)
    texts = set()
    for image in range(24):
        for place in range(hypotheses.scores.shape[1]):
            length = hypotheses.lengths[image, place]
            tokens = hypotheses.tokens[image, place, :length].tolist()
            assert allowed(tokens, sampler), text_of(tokens)
            if place == 0 or isinstance(sampler, Nucleus):
                assert num_unmet(tokens, sampler) == 0, text_of(tokens)
            texts.add(text_of(tokens))
    assert len(texts) > 12
    assert_token_scores(toy, hypotheses, replace(sampler, include=(), exclude=()))


def test_greedy_search_takes_the_best_token_that_is_not_excluded():
    toy = Toy(images=24, vocabulary=5, steps=6, seed=9)
    sampler = Greedy(max_new_tokens=6, exclude=["ab", "d."])
    hypotheses = run(toy, sampler)
    for image in range(24):
        tokens, total = [], 0.0
        while len(tokens) < 6 and EOS not in tokens:
            logp = log_probs(toy.logits(image, tokens), tokens, sampler)
            order = np.argsort(-logp, kind="stable").tolist()
            best = next(token for token in order if allowed([*tokens, token], sampler))
            tokens, total = [*tokens, best], total + logp[best]
        assert_captions(hypotheses, image, [(total, tuple(tokens))])


@pytest.mark.parametrize("size, number", [(1, 1), (70, 5), (40_000, 128)])
def test_beams_are_shared_between_numbers_of_tokens_left(size, number):
    random = np.random.default_rng(size)
    left = random.choice([0, 1, 2, 3, 6, 7, 10_000], (3, size)).astype("int32")
    left[0] = left[0] // 6 * 6  # few numbers, most of them too late
    ranks = -np.sort(random.integers(0, size, (3, size)).astype("float32"), axis=1)  # some equal
    ranks[random.random((3, size)) < 0.3] = -np.inf
    words = SimpleNamespace(tokens_left=lambda state, met: ops.convert_to_tensor(left))
    selected = WordSearch(words, None, None).allocate(ops.convert_to_tensor(ranks), 5, number)
    for row in range(3):
        places, keys = Counter(), []
        for index in np.flatnonzero(ranks[row] > -np.inf).tolist():
            tokens = int(left[row, index])
            keys.append((tokens > 5, places[tokens], tokens, index))
            places[tokens] += 1
        expected = [index for *_, index in sorted(keys)[:number]]
        assert ops.convert_to_numpy(selected)[row, : len(expected)].tolist() == expected


@pytest.mark.parametrize("length_penalty", [0.7, -20.0])
def test_captions_that_lack_words_are_ranked_by_their_number_then_by_score(length_penalty):
    toy = Toy(images=3, vocabulary=5, steps=3, seed=12, scale=0.05)  # scores are close together
    toy.prompt[:] = EOS
    sampler = Beam(
        num_beams=85,
        num_captions=85,  # all there are
        max_new_tokens=3,
        min_new_tokens=0,
        length_penalty=length_penalty,
        include=["ab", "d"],
    )
    hypotheses = run(toy, sampler)
    for image in range(3):
        complete, cut = all_captions(toy, image, sampler)
        best = ranked([*complete.items(), *cut.items()], length_penalty)
        best = sorted(best, key=lambda caption: num_unmet(caption[2], sampler))  # stably
        kinds = [(num_unmet(tokens, sampler), is_cut) for is_cut, _, tokens, _ in best]
        assert len(set(kinds)) == 6 and len(kinds) == 85
        assert_captions(hypotheses, image, [(total, tokens) for *_, tokens, total in best])


def test_captions_without_the_words_are_returned_if_there_are_no_others():
    toy = Toy(images=8, vocabulary=5, steps=2, seed=10)
    words = ["ab", "d", "c"]  # more than fit into 2 steps
    plain = toy.run(Beam(max_new_tokens=2))
    for sampler in (Beam(max_new_tokens=2, include=words), Greedy(max_new_tokens=2, include=words)):
        hypotheses = run(toy, sampler)
        assert np.isfinite(hypotheses.scores).all()
    assert (hypotheses.lengths[:, 0] > 0).all() and plain.tokens.shape == hypotheses.tokens.shape


@pytest.mark.parametrize(
    "sampler",
    [Greedy(include=["ab"]), Beam(num_beams=1, include=["ab"]), Greedy(exclude=["ab"])],
    ids=str,
)
def test_the_rows_of_a_step_are_those_per_image(sampler):
    toy, rows = Toy(images=3, vocabulary=5, steps=2), set()
    step = toy.step
    toy.step = lambda tokens, *rest: rows.add(tokens.shape[0]) or step(tokens, *rest)
    run(toy, replace(sampler, max_new_tokens=2))
    assert rows == {3 * sampler.rows_per_image}


def test_one_program_serves_all_words():
    toy = Toy(images=6, vocabulary=5, steps=4, seed=11)
    samplers = [
        Beam(max_new_tokens=4, num_beams=3, include=["ab"], exclude=["d"]),
        Beam(max_new_tokens=4, num_beams=3, include=["c|d"], exclude=["ab"]),
    ]
    assert samplers[0].program() == samplers[1].program() == samplers[1].program().program()
    captions = []
    for sampler in samplers:
        received, expected = run(toy, sampler, program=True), run(toy, sampler)
        np.testing.assert_array_equal(received.tokens, expected.tokens)
        captions.append(received.tokens)
    assert (captions[0] != captions[1]).any()
    assert Beam().program() != samplers[0].program() != Beam(include=["ab"]).program()


def test_words_are_lists_of_text_and_survive_a_config():
    sampler = Beam(include=["cat", ["orange ", "light  red"], "a|b"], exclude=("a photo of",))
    assert sampler.include == (("cat",), ("orange", "light red"), ("a", "b"))
    assert from_config(to_config(sampler)) == sampler
    assert to_config(sampler)["include"][1] == ["orange", "light red"]


@pytest.mark.parametrize(
    "words, error, message",
    [
        ({"include": "cat"}, TypeError, "`include` must be a list of words.*include='cat'"),
        ({"exclude": "cat"}, TypeError, "`exclude` must be a list of words"),
        ({"include": [3]}, TypeError, "include=3"),
        ({"include": [["cat", 3]]}, TypeError, r"include=\['cat', 3\]"),
        ({"exclude": [["cat"]]}, TypeError, r"exclude=\[\['cat'\]\]"),
        ({"include": ["cat|"]}, ValueError, "empty words"),
        ({"include": [[]]}, ValueError, "none of them empty"),
        ({"exclude": [" "]}, ValueError, "empty words"),
        ({"include": [str(i) for i in range(32)]}, ValueError, "at most 31 groups"),
    ],
)
def test_errors_name_invalid_words(words, error, message):
    with pytest.raises(error, match=message):
        Beam(**words)


@pytest.mark.parametrize(
    "sampler", [Beam(include=["ab"]), Greedy(exclude=["ab"]), Nucleus(include=["ab"])]
)
def test_samplers_called_directly_need_the_tables_of_the_words(sampler):
    toy = Toy(images=2, vocabulary=5, steps=3)
    with pytest.raises(ValueError, match=r"Captioner.generate.*phrase_tables"):
        toy.run(replace(sampler, max_new_tokens=3))
