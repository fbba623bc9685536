"""Rewards are CIDEr-D with the end of a caption as a word, and what is asked for besides."""

from __future__ import annotations

import numpy as np
import pytest

from effcap.metrics import CiderD, tokenize
from effcap.trainers.objectives.rewards import END, Reward
from effcap.trainers.options.scst import RewardOptions, ScstOptions

REFERENCES = [
    ["A brown dog runs through the grass.", "A dog is running on a lawn."],
    ["Two children play on the beach.", "Kids playing in the sand near the water."],
    ["A man rides a bike down the street.", "A cyclist on a road."],
]
FREQUENCIES = Reward.count(REFERENCES)


def reward(captions, finished=None, **options) -> np.ndarray:
    finished = np.ones((len(captions), len(captions[0])), bool) if finished is None else finished
    return Reward(FREQUENCIES, RewardOptions(**options))(
        captions, np.array(finished), REFERENCES[: len(captions)]
    )


def test_a_reward_is_cider_d_with_an_end_word():
    tokens = [[[*tokenize(text), "end"] for text in group] for group in REFERENCES]
    captions = [["a dog runs through the grass", "a man"], ["children on the beach", "a dog"]]
    cider = CiderD(tokens)
    wanted = cider.score(
        [[*tokenize(text), "end"] for group in captions for text in group], [0, 0, 1, 1]
    )
    np.testing.assert_allclose(reward(captions).ravel(), wanted, atol=1e-9)


def test_a_caption_that_breaks_off_is_worth_less_than_one_that_ends_there():
    whole, cut = reward([["a dog runs through the grass"] * 2], [[True, False]])[0]
    assert whole > cut > 0
    dangling, clean = reward([["a dog runs through the", "a dog runs through the grass"]])[0]
    assert clean > dangling


def test_without_an_end_word_a_dangling_end_would_cost_less():
    """The known fault of rewards without it: captions end in "of a"."""
    tokens = [[tokenize(text) for text in group] for group in REFERENCES]
    plain = CiderD(tokens)
    texts = ["a dog is running on a lawn", "a dog is running on a"]
    without = np.subtract(*plain.score([tokenize(text) for text in texts], [0, 0]))
    with_end = np.subtract(*reward([texts])[0])
    assert with_end > without


def test_bleu_and_length_are_added_and_taken_off():
    captions = [["a brown dog runs through the grass", "a dog"]]
    plain = reward(captions)
    assert reward(captions, bleu=0.5)[0, 0] == pytest.approx(plain[0, 0] + 0.5)
    lengths = np.array([7, 2])  # the references have 7 words each
    np.testing.assert_allclose(
        reward(captions, length=0.1), plain - 0.1 * np.abs(lengths - 7), atol=1e-9
    )


def test_no_caption_is_worth_something_for_the_word_of_its_end():
    assert END not in tokenize(f"a dog {END}")


def test_frequencies_are_counted_once_and_kept(tmp_path):
    file = tmp_path / "run" / "frequencies.npz"
    first = Reward.count(REFERENCES, file)
    again = Reward.count([["something else altogether"]], file)
    assert again.images == first.images == 3
    np.testing.assert_array_equal(first.hashes[0], again.hashes[0])


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"samples": 1}, "at least 2 samples"),
        ({"baseline": "mean"}, "baseline out of others, greedy"),
        ({"cross_entropy": 1.0}, "cross_entropy from 0"),
        ({"temperature": 0.0}, "temperature"),
        ({"p": 1.5}, "p above 0"),
        ({"min_distinct": -1.0}, "min_distinct"),
    ],
)
def test_options_out_of_range_are_refused(options, message):
    with pytest.raises(ValueError, match=message):
        ScstOptions(**options)


def test_rewards_out_of_range_are_refused():
    with pytest.raises(ValueError, match="bleu of at least 0"):
        RewardOptions(bleu=-1)
