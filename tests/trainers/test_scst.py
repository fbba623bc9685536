"""Self-critical batches: one's own samples, weighted so that their loss has the right gradient."""

from __future__ import annotations

import zlib

import keras
import numpy as np
import pytest
from helpers.data_maker import make_captioner, make_photos

from effcap.losses import CaptionLoss, cross_entropy
from effcap.samplers import Greedy
from effcap.trainers import CaptionBatches, CaptionedPhoto, PhotoFiles
from effcap.trainers.objectives.scst import CollapsedCaptions, SelfCritic
from effcap.trainers.options.scst import ScstOptions


@pytest.fixture(scope="module")
def photos(tmp_path_factory):
    folder = tmp_path_factory.mktemp("photos")
    return [
        CaptionedPhoto(folder / name, tuple(captions)) for name, captions in make_photos(folder, 10)
    ]


@pytest.fixture(scope="module")
def captioner(photos):
    return make_captioner([text for photo in photos for text in photo.captions], dropout=0.0)


def by_hash(captions, finished, references) -> np.ndarray:
    """A reward that differs from text to text, whatever a captioner without training says."""
    return np.array([[zlib.crc32(text.encode()) % 97 / 50 for text in row] for row in captions])


def make(photos, captioner, batch_size: int = 4, reward=by_hash, **options) -> SelfCritic:
    source = PhotoFiles([photo.path for photo in photos], captioner.encoder.image_size)
    batches = CaptionBatches(
        photos, source, captioner.tokenizer, captioner.decoder.positions, batch_size=batch_size
    )
    return SelfCritic(captioner, batches, reward, ScstOptions(**{"max_tokens": 8, **options}))


def numpy(value) -> np.ndarray:
    return keras.ops.convert_to_numpy(value)


def test_a_row_holds_the_samples_of_its_photo_and_nothing_else(photos, captioner):
    critic = make(photos, captioner, samples=3)
    batch = critic.batches[0]
    inputs, targets, weights = critic.batch(batch, 0)
    np.testing.assert_array_equal(inputs["images"], batch[0]["images"])
    assert inputs["segments"].max() == 3
    assert targets.shape == weights.shape == inputs["tokens"].shape == inputs["segments"].shape


def test_same_step_same_samples_and_another_step_others(photos, captioner):
    critic = make(photos, captioner, samples=3)
    batch = critic.batches[0]
    first, again, other = (critic.batch(batch, step)[1] for step in (5, 5, 6))
    np.testing.assert_array_equal(first, again)
    assert first.shape != other.shape or (first != other).any()


def advantages(critic, batch, step) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """(weight of each token (B, T), segments, those scaled back to advantages)."""
    inputs, _, weights = critic.batch(batch, step)
    counted = np.count_nonzero(inputs["segments"])
    return weights, inputs["segments"], weights * counted


def test_all_tokens_of_a_sample_have_one_weight_and_those_of_a_photo_cancel(photos, captioner):
    critic = make(photos, captioner, samples=4, max_tokens=30)
    weights, segments, scaled = advantages(critic, critic.batches[1], 3)
    for row in range(len(weights)):
        values = []
        for segment in range(1, 5):
            found = np.unique(scaled[row][segments[row] == segment].round(6))
            values += found[found != 0].tolist()[:1] or [0.0]
        # Each is compared with the mean of the others.
        assert sum(values) == pytest.approx(0, abs=1e-4)
    assert not weights[segments == 0].any()


def test_the_loss_is_the_mean_of_advantage_times_negative_log_probability(photos, captioner):
    critic = make(photos, captioner, samples=3)
    inputs, targets, weights = critic.batch(critic.batches[0], 1)
    captioner.compile("sgd", CaptionLoss(reduction="sum"), [], jit_compile=False)
    logits = captioner(inputs, training=False)
    wanted = (numpy(cross_entropy(targets, logits)) * weights).sum()
    found = captioner.evaluate(inputs, targets, sample_weight=weights, batch_size=4, verbose=0)
    assert float(np.ravel(found)[0]) == pytest.approx(wanted, rel=1e-4, abs=1e-5)


def test_training_makes_samples_of_high_reward_likelier(photos, captioner):
    """One step along the gradient, on the same samples."""
    critic = make(photos, captioner, samples=4)
    inputs, targets, weights = critic.batch(critic.batches[0], 2)
    own = make_captioner([text for photo in photos for text in photo.captions], dropout=0.0)
    own.set_weights(captioner.get_weights())
    own.compile(keras.optimizers.SGD(0.5), CaptionLoss(reduction="sum"), [], jit_compile=False)
    before = numpy(cross_entropy(targets, own(inputs, training=False)))
    own.train_on_batch(inputs, targets, weights)
    gained = before - numpy(cross_entropy(targets, own(inputs, training=False)))
    assert (gained * weights).sum() > 0
    assert gained[weights > 0].mean() > gained[weights < 0].mean()


def test_a_sample_that_was_cut_gets_no_credit_for_an_end(photos, captioner):
    critic = make(photos, captioner, samples=3, max_tokens=2)
    inputs, targets, weights = critic.batch(critic.batches[0], 4)
    ends = (targets == captioner.tokenizer.eos_id) & (inputs["segments"] > 0)
    lengths = [
        np.count_nonzero(inputs["segments"][row] == segment)
        for row in range(4)
        for segment in range(1, 4)
    ]
    cut = np.array(lengths) == 3  # two tokens and the place of an end
    assert cut.any()
    for (row, segment), was_cut in zip(
        ((row, segment) for row in range(4) for segment in range(1, 4)), cut, strict=True
    ):
        here = ends[row] & (inputs["segments"][row] == segment)
        if was_cut:
            assert not weights[row][here].any()


def test_the_greedy_baseline_is_the_reward_of_the_most_likely_caption(photos, captioner):
    critic = make(photos, captioner, samples=1, baseline="greedy")
    critic.batch(critic.batches[0], 0)
    found = {metric.name: float(metric.result()) for metric in critic.metrics}
    batch = critic.batches[0]
    texts = captioner.generate_batch({"images": batch[0]["images"]}, Greedy(max_tokens=8))
    finished = np.array([[len(options[0].tokens) < 8] for options in texts])
    rewards = critic.reward(
        [[options[0].text] for options in texts], finished, critic.batches.texts(batch)
    )
    assert found["baseline"] == pytest.approx(rewards.mean(), abs=1e-5)


def test_cross_entropy_on_references_can_be_mixed_in(photos, captioner):
    critic = make(photos, captioner, samples=2, cross_entropy=0.25)
    batch = critic.batches[0]
    inputs, _, weights = critic.batch(batch, 0)
    references = inputs["segments"] > 2
    assert weights[references].sum() == pytest.approx(0.25)
    assert np.count_nonzero(references) == np.count_nonzero(batch[2])
    assert (weights[references] > 0).all()
    captioner(inputs)  # positions and all


def test_photos_that_fill_up_a_batch_weigh_nothing(photos, captioner):
    critic = make(photos, captioner, batch_size=8)
    last = next(b for b in (critic.batches[i] for i in range(2)) if not b[2].any(axis=1).all())
    real = last[2].any(axis=1)
    _, _, weights = critic.batch(last, 0)
    assert not weights[~real].any() and weights[real].any()


def test_collapsed_captions_end_the_run(photos, captioner, monkeypatch):
    monkeypatch.setattr("effcap.trainers.objectives.scst.WINDOW", 6)
    critic = make(photos, captioner, samples=2, min_distinct=0.5)
    texts = [["The same.", "Another."]] * 4
    monkeypatch.setattr(
        critic, "_texts", lambda samples: (texts, np.ones(samples.lengths.shape, bool))
    )
    critic.batch(critic.batches[0], 0)
    with pytest.raises(CollapsedCaptions, match="Received: 16.7%, most often 'The same.'"):
        critic.batch(critic.batches[1], 1)


def test_more_tokens_than_positions_are_refused(photos, captioner):
    with pytest.raises(ValueError, match="max_tokens of at most 64"):
        make(photos, captioner, max_tokens=65)
