"""SCST batches: samples of the captioner, weighted so that their loss has the right gradient."""

from __future__ import annotations

import zlib

import keras
import numpy as np
import pytest

from effcap.captioner import Captioner
from effcap.losses import cross_entropy
from effcap.samplers import Greedy
from effcap.trainers import BatchOptions, CaptionBatches, Example, PhotoFiles, ScstOptions
from effcap.trainers.objectives.scst import CollapsedCaptions, Scst
from helpers.data_maker import make_captioner, make_photos


@pytest.fixture(scope="module")
def examples(tmp_path_factory):
    folder = tmp_path_factory.mktemp("photos")
    return [Example(folder / name, tuple(captions)) for name, captions in make_photos(folder, 10)]


def make_model(examples) -> Captioner:
    texts = [text for example in examples for text in example.captions]
    return make_captioner(texts, dropout=0.0)


@pytest.fixture(scope="module")
def captioner(examples):
    return make_model(examples)


@pytest.fixture(scope="module")
def batches(examples, captioner):
    return make_batches(examples, captioner, batch_size=4)


def make_batches(examples, captioner, batch_size) -> CaptionBatches:
    loader = PhotoFiles([example.path for example in examples], captioner.encoder.image_size)
    options = BatchOptions(batch_size=batch_size)
    length = captioner.decoder.max_text_length
    return CaptionBatches(examples, loader, captioner.tokenizer, length, options)


def hash_reward(captions, finished, references) -> np.ndarray:
    """A reward that differs between texts, whatever an untrained captioner writes."""
    return np.array([[zlib.crc32(text.encode()) % 97 / 50 for text in row] for row in captions])


def make_scst(captioner, **options) -> Scst:
    objective = Scst(hash_reward, ScstOptions(**{"max_new_tokens": 8, **options}))
    objective.build(captioner)
    return objective


@pytest.fixture(scope="module")
def scst(captioner) -> Scst:
    """An objective with 3 samples per photo, compiled once."""
    return make_scst(captioner, num_samples=3)


def numpy(value) -> np.ndarray:
    return keras.ops.convert_to_numpy(value)


def test_a_row_holds_the_samples_of_its_photo(scst, batches):
    batch = batches[0]
    inputs, targets, weights = scst.sample_batch(batches, batch, 0)
    np.testing.assert_array_equal(inputs["images"], batch[0]["images"])
    assert inputs["segments"].max() == 3
    assert targets.shape == weights.shape == inputs["tokens"].shape == inputs["segments"].shape


def test_equal_steps_give_equal_samples_and_other_steps_others(scst, batches):
    first, again, other = (scst.sample_batch(batches, batches[0], step)[1] for step in (5, 5, 6))
    np.testing.assert_array_equal(first, again)
    assert first.shape != other.shape or (first != other).any()


def test_tokens_of_a_sample_share_a_weight_and_advantages_sum_to_zero(captioner, batches):
    objective = make_scst(captioner, num_samples=4, max_new_tokens=30)
    inputs, _, weights = objective.sample_batch(batches, batches[1], 3)
    segments = inputs["segments"]
    scaled = weights * np.count_nonzero(segments)
    for row in range(len(weights)):
        advantages = []
        for segment in range(1, 5):
            values = np.unique(scaled[row][segments[row] == segment].round(6))
            values = values[values != 0]  # the end of a truncated sample has no weight
            assert len(values) <= 1
            advantages += values.tolist() or [0.0]
        assert sum(advantages) == pytest.approx(0, abs=1e-4)  # baseline: mean of the others
    assert not weights[segments == 0].any()


def test_the_loss_is_the_mean_of_advantage_times_negative_log_probability(captioner, scst, batches):
    inputs, targets, weights = scst.sample_batch(batches, batches[0], 1)
    captioner.compile("sgd", scst.loss, [], run_eagerly=True)
    logits = captioner(inputs, training=False)
    expected = (numpy(cross_entropy(targets, logits)) * weights).sum() / (weights != 0).sum()
    loss = captioner.evaluate(inputs, targets, sample_weight=weights, batch_size=4, verbose=0)
    assert float(np.ravel(loss)[0]) == pytest.approx(expected, rel=1e-4, abs=1e-5)


def test_training_makes_samples_of_high_reward_more_likely(examples, captioner, scst, batches):
    inputs, targets, weights = scst.sample_batch(batches, batches[0], 2)
    trained = make_model(examples)
    trained.set_weights(captioner.get_weights())
    trained.compile(keras.optimizers.SGD(0.5), scst.loss, [], run_eagerly=True)
    before = numpy(cross_entropy(targets, trained(inputs, training=False)))  # (B,T)
    trained.train_on_batch(inputs, targets, weights)
    gain = before - numpy(cross_entropy(targets, trained(inputs, training=False)))  # (B,T)
    assert (gain * weights).sum() > 0
    assert gain[weights > 0].mean() > gain[weights < 0].mean()


def test_the_end_of_a_truncated_sample_has_no_weight(captioner, batches):
    objective = make_scst(captioner, num_samples=3, max_new_tokens=2)
    inputs, targets, weights = objective.sample_batch(batches, batches[0], 4)
    num_truncated = 0
    for row, segments in enumerate(inputs["segments"]):
        for segment in range(1, 4):
            positions = segments == segment
            if np.count_nonzero(positions) == 3:  # two tokens and the position of an end
                num_truncated += 1
                ends = positions & (targets[row] == captioner.tokenizer.eos_id)
                assert not weights[row][ends].any()
    assert num_truncated


def test_the_greedy_baseline_is_the_reward_of_the_greedy_caption(captioner, batches):
    objective = make_scst(captioner, num_samples=1, baseline="greedy")
    batch = batches[0]
    objective.sample_batch(batches, batch, 0)
    scores = {metric.name: float(metric.result()) for metric in objective.metrics}
    captions = captioner.generate_batch({"images": batch[0]["images"]}, Greedy(max_new_tokens=8))
    finished = np.array([[len(one[0].tokens) < 8] for one in captions])
    rewards = hash_reward([[one[0].text] for one in captions], finished, batches.texts(batch))
    assert scores["baseline"] == pytest.approx(rewards.mean(), abs=1e-5)


def test_cross_entropy_on_references_can_be_added(captioner, batches):
    objective = make_scst(captioner, num_samples=2, cross_entropy_weight=0.25)
    batch = batches[0]
    inputs, _, weights = objective.sample_batch(batches, batch, 0)
    references = inputs["segments"] > 2
    assert weights[references].sum() / (weights != 0).sum() == pytest.approx(0.25)
    assert np.count_nonzero(references) == np.count_nonzero(batch[2])
    assert (weights[references] > 0).all()
    captioner(inputs)  # the decoder has enough positions


def test_photos_that_fill_up_a_batch_have_no_weight(scst, batches):
    last = next(one for one in map(batches.__getitem__, range(3)) if not one[2].any(1).all())
    is_real = last[2].any(axis=1)  # (B,)
    _, _, weights = scst.sample_batch(batches, last, 0)
    assert not weights[~is_real].any() and weights[is_real].any()


def test_collapsed_captions_end_the_run(scst, batches, monkeypatch):
    monkeypatch.setattr("effcap.trainers.objectives.scst.WINDOW", 6)
    objective = Scst(hash_reward, ScstOptions(num_samples=3, min_distinct=0.5))
    objective._nucleus = scst._nucleus
    objective.metrics = scst.metrics
    generate, texts = scst._generate, [["The same.", "Another.", "A third."]] * 4
    monkeypatch.setattr(objective, "_generate", lambda *_: generate(*_)._replace(texts=texts))
    objective.sample_batch(batches, batches[0], 0)
    with pytest.raises(CollapsedCaptions, match="Received: 16.7%, most often 'The same.'"):
        objective.sample_batch(batches, batches[1], 1)


def test_samples_longer_than_the_decoder_are_rejected(captioner):
    with pytest.raises(ValueError, match="max_new_tokens of at most 64"):
        make_scst(captioner, max_new_tokens=65)
