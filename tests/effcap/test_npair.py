"""Tests of effcap.npair."""

from __future__ import annotations

import os
from pathlib import Path

import keras
import numpy as np
import pytest

from effcap.captioner import Captioner
from effcap.losses import CaptionLoss
from effcap.npair import NPairLoss, PrefixedLogits
from helpers.captioners import example_batch, numpy, randomize, tiny_hparams

REPOSITORY = Path(__file__).resolve().parents[2]
GOLDENS = Path(os.environ.get("EFFCAP_SHARED", REPOSITORY.parent / "shared")) / "goldens"
RNG = np.random.default_rng(0)
IMAGES, PREFIX, WIDTH = 3, 4, 8


def random(*shape: int) -> np.ndarray:
    return RNG.normal(size=shape).astype("float32")


def expected_loss(captions: list[list[np.ndarray]], prefix: np.ndarray) -> float:
    """Returns the n-pair loss of the token embeddings (T, D) of each photo's captions."""
    positives = prefix.mean(axis=1)  # (B,D)
    anchors = [(row, caption[:20].mean(axis=0)) for row, c in enumerate(captions) for caption in c]
    losses = []
    for row, anchor in anchors:
        logits = positives @ anchor  # (B,)
        losses.append(np.log(np.exp(logits).sum()) - logits[row])
    norms = np.mean([anchor @ anchor for _, anchor in anchors]) + (positives**2).sum(1).mean()
    return float(np.mean(losses) + 0.02 * 0.25 * norms)


def pack(captions: list[list[np.ndarray]], length: int) -> tuple[np.ndarray, np.ndarray]:
    """Packs captions, each with a start token, into embeddings (B, T, D) and segments (B, T)."""
    embeddings, segments = random(len(captions), length, WIDTH), np.zeros((len(captions), length))
    for row, row_captions in enumerate(captions):
        start = 0
        for number, caption in enumerate(row_captions, 1):
            end = start + 1 + len(caption)
            embeddings[row, start + 1 : end] = caption
            segments[row, start:end] = number
            start = end
    return embeddings, segments.astype("int32")


def received_loss(embeddings, segments, prefix, weights=None) -> float:
    outputs = PrefixedLogits(None, prefix, embeddings, segments)
    return float(NPairLoss(npair_weight=0.5).npair(outputs, weights))


@pytest.mark.parametrize("mapper", ("mlp", "transformer"))
def test_the_loss_equals_the_original(mapper):
    if not GOLDENS.is_dir():
        pytest.skip("needs the outputs of the original implementations")
    with np.load(GOLDENS / "opg.npz") as file:
        outputs = dict(file)
    prefix = outputs[mapper]  # (B,P,D)
    rng = np.random.default_rng(int(outputs["seed"]) + 1)
    shape = (len(prefix), 30, prefix.shape[2])
    captions = rng.standard_normal(shape).astype(np.float32)  # (B,30,D)
    with_start = np.concatenate([captions[:, :1], captions], axis=1)  # (B,31,D)
    received = received_loss(with_start, None, prefix)
    assert received == pytest.approx(float(outputs[f"npair_{mapper}"]), abs=1e-5)


def test_several_captions_of_a_photo_are_anchors_of_one_positive():
    captions = [[random(4, WIDTH), random(25, WIDTH)], [random(3, WIDTH)], [random(6, WIDTH)]]
    prefix = random(IMAGES, PREFIX, WIDTH)
    embeddings, segments = pack(captions, 35)
    weights = (segments > 0).astype("float32")
    received = received_loss(embeddings, segments, prefix, weights)
    assert received == pytest.approx(expected_loss(captions, prefix), rel=1e-5)


def test_padding_empty_captions_and_rows_without_weight_do_not_count():
    captions = [[random(4, WIDTH)], [random(3, WIDTH), random(0, WIDTH)], [random(5, WIDTH)]]
    prefix = random(IMAGES, PREFIX, WIDTH)
    embeddings, segments = pack(captions, 12)
    weights = (segments > 0).astype("float32")
    weights[2] = 0  # pads the batch
    received = received_loss(embeddings, segments, prefix, weights)
    assert received == pytest.approx(
        expected_loss([[captions[0][0]], [captions[1][0]]], prefix[:2]), rel=1e-5
    )
    assert received_loss(embeddings, segments, prefix, 0 * weights) == 0


def prefix_captioner(tokenizer, **decoder) -> Captioner:
    keras.utils.set_random_seed(0)
    hparams = tiny_hparams(fusion={"kind": "prefix"}, max_sequence_length=56, **decoder)
    return randomize(Captioner.from_hparams(hparams, tokenizer))


@pytest.mark.slow
def test_training_minimizes_both_losses_and_evaluation_the_cross_entropy(tokenizer):
    captioner = prefix_captioner(tokenizer)
    inputs, targets, weights = example_batch(captioner)
    captioner.compile(
        keras.optimizers.SGD(0.0),
        NPairLoss(npair_weight=0.5),
        jit_compile=keras.backend.backend() == "jax",
    )
    outputs = captioner(inputs, training=True)
    npair = float(captioner.loss.npair(outputs, weights))
    logits = captioner(inputs, training=False)  # no dropout, so the same logits
    np.testing.assert_allclose(numpy(outputs.logits), numpy(logits), atol=1e-5)
    assert npair > 0.1
    trained = captioner.fit(inputs, targets, sample_weight=weights, verbose=0).history
    assert trained["npair"][0] == pytest.approx(npair, rel=1e-4)
    total = trained["cross_entropy"][0] + 0.5 * npair
    assert trained["loss"][0] == pytest.approx(total, rel=1e-4)
    scores = captioner.evaluate(inputs, targets, sample_weight=weights, verbose=0, return_dict=True)
    assert scores["loss"] == pytest.approx(scores["cross_entropy"], rel=1e-5)
    assert set(scores) == {"loss", "cross_entropy"}


def test_a_captioner_compiled_with_another_loss_has_no_npair_metric(tokenizer):
    captioner = prefix_captioner(tokenizer)
    names = []
    for loss in (NPairLoss(), NPairLoss(), CaptionLoss()):
        captioner.compile("sgd", loss, jit_compile=False)
        names.append([metric.name for metric in captioner.metrics].count("npair"))
    assert names == [1, 1, 0]


@pytest.mark.slow
def test_the_loss_brings_prefixes_to_their_captions(tokenizer):
    captioner = prefix_captioner(tokenizer, frozen="pretrained")
    inputs, targets, weights = example_batch(captioner)
    loss = NPairLoss(npair_weight=10.0)
    captioner.compile(
        keras.optimizers.Adam(1e-2), loss, jit_compile=keras.backend.backend() == "jax"
    )
    kept = [numpy(variable).copy() for variable in captioner.decoder.pretrained_variables]
    before = float(loss.npair(captioner(inputs, training=True), weights))
    captioner.fit(inputs, targets, sample_weight=weights, epochs=15, verbose=0)
    assert float(loss.npair(captioner(inputs, training=True), weights)) < 0.7 * before
    for variable, value in zip(captioner.decoder.pretrained_variables, kept, strict=True):
        np.testing.assert_array_equal(numpy(variable), value)


def test_a_loaded_keras_file_trains_with_the_loss(tokenizer, tmp_path):
    captioner = prefix_captioner(tokenizer)
    captioner.compile("sgd", NPairLoss(0.1, 0.3), jit_compile=False)
    captioner.save(tmp_path / "captioner.keras")
    loaded = keras.saving.load_model(tmp_path / "captioner.keras")
    assert loaded.loss.get_config() == captioner.loss.get_config()
    assert loaded.loss.npair_weight == 0.3


def test_a_negative_weight_is_refused():
    with pytest.raises(ValueError, match="Received: npair_weight=-1"):
        NPairLoss(npair_weight=-1)
