"""Rewards: CIDEr-D with the end of a caption as a word, with optional BLEU and length terms."""

from __future__ import annotations

import numpy as np
import pytest

from effcap.metrics import CiderD, tokenize
from effcap.trainers.objectives.rewards import END, Reward, count_references

REFERENCES = [
    ["A brown dog runs through the grass.", "A dog is running on a lawn."],
    ["Two children play on the beach.", "Kids playing in the sand near the water."],
    ["A man rides a bike down the street.", "A cyclist on a road."],
]
FREQUENCIES = count_references(REFERENCES)


def compute_rewards(captions, finished=None, **weights) -> np.ndarray:
    finished = np.ones((len(captions), len(captions[0])), bool) if finished is None else finished
    reward = Reward(FREQUENCIES, **weights)
    return reward(captions, np.array(finished), REFERENCES[: len(captions)])


def test_a_reward_is_cider_d_with_an_end_word():
    references = [[[*tokenize(text), "end"] for text in group] for group in REFERENCES]
    captions = [["a dog runs through the grass", "a man"], ["children on the beach", "a dog"]]
    candidates = [[*tokenize(text), "end"] for group in captions for text in group]
    expected = CiderD(references).score(candidates, [0, 0, 1, 1])
    np.testing.assert_allclose(compute_rewards(captions).ravel(), expected, atol=1e-9)


def test_a_truncated_caption_is_worth_less_than_a_finished_one():
    finished, truncated = compute_rewards([["a dog runs through the grass"] * 2], [[True, False]])[
        0
    ]
    assert finished > truncated > 0
    dangling, clean = compute_rewards([["a dog runs through the", "a dog runs through the grass"]])[
        0
    ]
    assert clean > dangling


def test_without_an_end_word_a_dangling_end_would_cost_less():
    """Rewards without it have a known fault: captions end in "of a"."""
    plain = CiderD([[tokenize(text) for text in group] for group in REFERENCES])
    texts = ["a dog is running on a lawn", "a dog is running on a"]
    without_end = np.subtract(*plain.score([tokenize(text) for text in texts], [0, 0]))
    with_end = np.subtract(*compute_rewards([texts])[0])
    assert with_end > without_end


def test_bleu_is_added_and_differences_of_length_are_subtracted():
    captions = [["a brown dog runs through the grass", "a dog"]]
    plain = compute_rewards(captions)
    assert compute_rewards(captions, bleu_weight=0.5)[0, 0] == pytest.approx(plain[0, 0] + 0.5)
    lengths = np.array([7, 2])  # the references have 7 words each
    expected = plain - 0.1 * np.abs(lengths - 7)
    np.testing.assert_allclose(compute_rewards(captions, length_weight=0.1), expected, atol=1e-9)


def test_a_caption_cannot_contain_the_end_word():
    assert END not in tokenize(f"a dog {END}")


def test_references_are_counted_once_and_read_from_the_file(tmp_path):
    file = tmp_path / "run" / "frequencies.npz"
    first = count_references(REFERENCES, file)
    again = count_references([["something else altogether"]], file)
    np.testing.assert_array_equal(first.hashes[0], again.hashes[0])
    np.testing.assert_array_equal(first.counts[0], again.counts[0])
    assert again.num_images == first.num_images == 3


def test_rewards_of_other_languages_count_characters(tmp_path):
    references = [["犬が走っている。"], ["黒い猫。", "猫が座る。"]]
    file = tmp_path / "frequencies.npz"
    reward = Reward(count_references(references, file, "char"), tokenization="char")
    rewards = reward([["犬が走る", "猫"], ["犬", "猫が座る"]], np.ones((2, 2), bool), references)
    assert rewards[0, 0] > rewards[0, 1] and rewards[1, 1] > rewards[1, 0]
    english = Reward(count_references(references))
    assert english([["犬が走る"]], np.ones((1, 1), bool), references[:1]) < rewards[0, 0]
