"""CaptionLoss against cross-entropy computed with NumPy."""

from __future__ import annotations

import keras
import numpy as np
import pytest

from effcap.losses import CaptionLoss
from helpers.captioners import numpy


def example(vocabulary=11):
    rng = np.random.default_rng(0)
    logits = 3 * rng.normal(size=(3, 5, vocabulary)).astype("float32")
    targets = rng.integers(0, vocabulary, (3, 5))
    weights = (np.arange(5) < np.array([[5], [2], [3]])).astype("float32")
    return targets, logits, weights


def reference_loss(targets, logits, weights, smoothing):
    losses = []
    for row, position in zip(*np.nonzero(weights), strict=True):
        exponentials = np.exp(logits[row, position].astype("float64"))
        probabilities = exponentials / exponentials.sum()
        target = np.full(len(probabilities), smoothing / len(probabilities))
        target[targets[row, position]] += 1 - smoothing
        losses.append(-(target * np.log(probabilities)).sum())
    return np.mean(losses)


@pytest.mark.parametrize("smoothing", [0.0, 0.1, 0.5])
def test_loss_is_the_mean_cross_entropy_of_real_tokens(smoothing):
    targets, logits, weights = example()
    received = CaptionLoss(label_smoothing=smoothing)(targets, logits, sample_weight=weights)
    assert float(received) == pytest.approx(
        reference_loss(targets, logits, weights, smoothing), rel=1e-5
    )


def test_padding_may_be_any_token_and_the_end_token_counts():
    targets, logits, weights = example()
    eos, loss = 4, CaptionLoss()
    targets[:, 1] = eos  # a real token in every row
    expected = float(loss(targets, logits, sample_weight=weights))
    for padding in (eos, 0, 10):
        padded = np.where(weights > 0, targets, padding)
        assert float(loss(padded, logits, sample_weight=weights)) == pytest.approx(expected)
    assert expected == pytest.approx(reference_loss(targets, logits, weights, 0), rel=1e-5)
    other = np.where((targets == eos) & (weights > 0), eos + 1, targets)
    assert float(loss(other, logits, sample_weight=weights)) != pytest.approx(expected)


def test_logits_of_padding_have_no_effect():
    targets, logits, weights = example()
    wild = np.where(weights[..., None] > 0, logits, 1e4 * np.sign(logits)).astype("float32")
    loss = CaptionLoss(label_smoothing=0.1)
    assert float(loss(targets, wild, sample_weight=weights)) == pytest.approx(
        float(loss(targets, logits, sample_weight=weights))
    )


def test_a_batch_of_padding_has_zero_loss():
    targets, logits, weights = example()
    assert float(CaptionLoss()(targets, logits, sample_weight=0 * weights)) == 0


@pytest.mark.parametrize("floatx", ["float16", "bfloat16"])
def test_large_token_ids_survive_a_half_precision_default_dtype(floatx):
    """Keras casts targets to the dtype of the loss, and 50257 is not a float16."""
    before = keras.config.floatx()
    keras.config.set_floatx(floatx)
    try:
        logits = np.zeros((1, 1, 50257), "float32")
        logits[..., 50255] = 20
        loss = float(CaptionLoss()(np.array([[50255]]), logits))
    finally:
        keras.config.set_floatx(before)
    assert loss == pytest.approx(0, abs=1e-3)


def test_label_smoothing_out_of_range_raises():
    for smoothing in (-0.1, 1.0):
        with pytest.raises(ValueError, match=f"label_smoothing={smoothing}"):
            CaptionLoss(label_smoothing=smoothing)


def test_configuration_survives_serialization():
    loss = keras.saving.deserialize_keras_object(
        keras.saving.serialize_keras_object(CaptionLoss(label_smoothing=0.2))
    )
    assert isinstance(loss, CaptionLoss) and loss.label_smoothing == 0.2
    targets, logits, weights = example()
    expected = CaptionLoss(label_smoothing=0.2)(targets, logits, sample_weight=weights)
    received = loss(targets, logits, sample_weight=weights)
    np.testing.assert_array_equal(numpy(received), numpy(expected))
