"""Losses and gradients are means over tokens, whatever the sizes of the batches."""

from __future__ import annotations

import keras
import numpy as np
import pytest

from effcap.captioner import Captioner
from effcap.losses import CaptionLoss
from helpers.captioners import example_batch, numpy, randomize, tiny_hparams

JIT = {"jit_compile": keras.backend.backend() == "jax"}


@pytest.fixture
def make_model(tokenizer):
    """Makes equal captioners without dropout."""

    def make():
        keras.utils.set_random_seed(0)
        return randomize(Captioner.from_hparams(tiny_hparams(), tokenizer))

    return make


def uneven_batch(captioner):
    """Returns six rows of which the last two hold one token together."""
    inputs, targets, weights = example_batch(captioner, rows=6)
    weights[4, 1:] = weights[5] = 0
    return inputs, targets, weights


def fit(captioner, optimizer, batch_size: int) -> list[np.ndarray]:
    """Returns the weights after two epochs on an uneven batch in parts of `batch_size` rows."""
    inputs, targets, weights = uneven_batch(captioner)
    captioner.compile(optimizer, **JIT)
    options = {"epochs": 2, "shuffle": False, "verbose": 0}
    captioner.fit(inputs, targets, batch_size, sample_weight=weights, **options)
    return [numpy(variable) for variable in captioner.trainable_variables]


@pytest.mark.slow
@pytest.mark.parametrize(
    "make_optimizer",
    (
        lambda steps: keras.optimizers.SGD(0.3, gradient_accumulation_steps=steps),
        pytest.param(
            lambda steps: keras.optimizers.AdamW(
                0.01, epsilon=1e-3, global_clipnorm=0.2, gradient_accumulation_steps=steps
            ),
            marks=pytest.mark.slow,
        ),
    ),
    ids=("SGD", "AdamW"),
)
def test_accumulated_batches_equal_one_batch_as_large_as_all(make_model, make_optimizer):
    accumulated = fit(make_model(), make_optimizer(3), batch_size=2)
    whole = fit(make_model(), make_optimizer(None), batch_size=6)
    for weights, other in zip(accumulated, whole, strict=True):
        np.testing.assert_allclose(weights, other, rtol=0, atol=1e-5)


@pytest.mark.usefixtures("eager")
@pytest.mark.parametrize("smoothing", (0.0, 0.2))
def test_evaluate_returns_the_loss_per_token_for_every_batch_size(make_model, smoothing):
    captioner = make_model()
    inputs, targets, weights = uneven_batch(captioner)
    captioner.compile("sgd", CaptionLoss(smoothing), **JIT)
    logits = captioner(inputs, training=False)
    expected = float(CaptionLoss(smoothing)(targets, logits, weights))
    for batch_size in (6, 4, 1):
        scores = captioner.evaluate(
            inputs, targets, batch_size, 0, sample_weight=weights, return_dict=True
        )
        assert scores["loss"] == pytest.approx(expected, abs=1e-5)
        assert sorted(scores) == ["cross_entropy", "loss"]


@pytest.mark.slow
def test_a_saved_captioner_keeps_its_accumulated_gradients(make_model, tmp_path):
    captioner = make_model()
    batch = uneven_batch(captioner)
    captioner.compile(keras.optimizers.SGD(0.3, gradient_accumulation_steps=2), **JIT)
    captioner.train_on_batch(*batch)
    captioner.save(tmp_path / "captioner.keras")
    loaded = keras.saving.load_model(tmp_path / "captioner.keras")
    for one in (captioner, loaded):
        one.train_on_batch(*batch)
    for weights, other in zip(captioner.weights, loaded.weights, strict=True):
        np.testing.assert_array_equal(numpy(weights), numpy(other))
