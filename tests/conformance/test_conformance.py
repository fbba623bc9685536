"""What every variant in hparams/ must do, checked on a tiny copy of each."""

from __future__ import annotations

import json
from pathlib import Path

import keras
import numpy as np
import pytest
from helpers.captioners import (
    CAPTIONS,
    compile_quickly,
    example_batch,
    example_inputs,
    numpy,
    randomize,
)
from keras import ops

from effcap.captioner import Captioner
from effcap.config import list_variants, load_hparams
from effcap.encoders.memory import Memory
from effcap.generation import CaptionProgram
from effcap.losses import CaptionLoss
from effcap.presets import WEIGHTS
from effcap.samplers import Beam, Greedy
from effcap.trainers.batching.in_memory import CaptionBatches
from effcap.trainers.data.example import CaptionedPhoto
from effcap.trainers.engine.smoke import shrink

SAMPLER = Greedy(max_tokens=8)
TIGHT = {"rtol": 0, "atol": 1e-5}
traced_only = pytest.mark.skipif(keras.backend.backend() == "torch", reason="runs eagerly")


def distinct_variants() -> list[str]:
    """Variants that still differ when they are tiny."""
    first: dict[str, str] = {}
    for name in list_variants():
        small = shrink(load_hparams(name))
        first.setdefault(json.dumps([small["encoder"], small["decoder"]], sort_keys=True), name)
    return sorted(first.values())


@pytest.fixture(scope="module", params=distinct_variants())
def hparams(request) -> dict:
    return shrink(load_hparams(request.param))


@pytest.fixture(scope="module")
def captioner(hparams, tokenizer) -> Captioner:
    """The variant with random weights in every part. Not to be changed by a test."""
    keras.utils.set_random_seed(1)
    return randomize(Captioner.from_hparams(hparams, tokenizer))


@pytest.fixture(scope="module")
def captions(captioner) -> list:
    return captioner.generate_batch(example_inputs(captioner.encoder, 4), SAMPLER)


class ArraySource:
    """The encoder's inputs from arrays in memory."""

    mirrored = False
    fingerprint = "array"

    def __init__(self, inputs: dict):
        self.inputs = inputs

    def load(self, photos, mirror, draws=None):
        return {name: array[photos] for name, array in self.inputs.items()}


@pytest.fixture(scope="module")
def training(hparams, tokenizer) -> tuple[CaptionBatches, list[float], int, int]:
    """Batches, the loss after each epoch, and the model's traces after one step and in all."""
    keras.utils.set_random_seed(2)
    captioner = Captioner.from_hparams(hparams, tokenizer)
    source = ArraySource(example_inputs(captioner.encoder, 6))
    photos = [CaptionedPhoto(Path(str(i)), CAPTIONS[i : i + 2]) for i in range(6)]
    batches = CaptionBatches(
        photos, source, tokenizer, captioner.decoder.positions, batch_size=4, buckets=1, threads=1
    )
    traces = []
    call = captioner.call

    def counted(*arguments, **named):
        traces.append(1)
        return call(*arguments, **named)

    captioner.call = counted
    compile_quickly(captioner)
    before = captioner.fit(batches, steps_per_epoch=1, verbose=0)
    first = len(traces)
    after = captioner.fit(batches, epochs=5, verbose=0)
    losses = before.history["cross_entropy"] + after.history["cross_entropy"]
    return batches, losses, first, len(traces)


def assert_same_captions(received, expected):
    assert [[c.tokens for c in options] for options in received] == [
        [c.tokens for c in options] for options in expected
    ]
    np.testing.assert_allclose(
        [[c.score for c in options] for options in received],
        [[c.score for c in options] for options in expected],
        atol=1e-3,
    )


def random_tokens(captioner, rows, length, seed=0):
    vocabulary = captioner.decoder.vocabulary_size
    return np.random.default_rng(seed).integers(0, vocabulary, (rows, length)).astype(np.int32)


def test_different_inputs_give_different_captions(captioner, captions):
    """Without this the other tests would say little."""
    assert len({options[0].tokens for options in captions}) > 1


def test_training_lowers_the_loss(training, tokenizer):
    _, losses, _, _ = training
    assert losses[0] == pytest.approx(np.log(tokenizer.vocabulary_size), rel=0.1)
    assert losses[-1] < 0.9 * losses[0]


@traced_only
def test_a_smaller_last_batch_is_trained_on_without_recompiling(training):
    batches, _, first, traces = training
    assert len(batches) == 2 and batches.images == 6
    assert 0 < first == traces


@pytest.mark.parametrize("captions_per_image", [1, 3])
def test_cached_decoding_equals_the_uncached_call(captioner, captions_per_image):
    decoder, images, length = captioner.decoder, 2, 7
    memory = captioner.encoder(example_inputs(captioner.encoder, images), training=False)
    rows = images * captions_per_image
    tokens = random_tokens(captioner, rows, length)
    repeated = [
        Memory(*(part if part is None else ops.repeat(part, captions_per_image, 0) for part in one))
        for one in memory
    ]
    expected = numpy(decoder(tokens, repeated))
    uncached = numpy(decoder(tokens, memory))
    np.testing.assert_allclose(uncached, expected, **TIGHT)
    assert np.abs(numpy(decoder(tokens)) - expected).max() > 0.01  # memory matters

    cache, contexts = decoder.empty_cache(rows, length + 2), decoder.project(memory)
    for position in range(length):
        token = ops.convert_to_tensor(tokens[:, position])
        logits, cache = decoder.step(token, ops.convert_to_tensor(position), cache, contexts)
        np.testing.assert_allclose(numpy(logits), expected[:, position], **TIGHT)


def test_captions_packed_in_a_row_have_the_logits_of_each_alone(captioner):
    decoder = captioner.decoder
    memory = captioner.encoder(example_inputs(captioner.encoder, 2), training=False)
    lengths = (4, 6, 3)
    tokens = random_tokens(captioner, 2, sum(lengths))
    segments = np.repeat(np.arange(1, 4), lengths)[None].repeat(2, axis=0).astype(np.int32)
    packed = numpy(decoder(tokens, memory, segments))
    for segment in range(1, 4):
        here = segments[0] == segment
        alone = numpy(decoder(tokens[:, here], memory))
        np.testing.assert_allclose(packed[:, here], alone, **TIGHT)


def test_padding_changes_nothing(captioner):
    """Neither more padding in a row than the decoder has positions, nor rows that fill a batch."""
    inputs, targets, weights = example_batch(captioner, rows=3)
    loss = CaptionLoss()
    logits = numpy(captioner(inputs, training=False))
    more = captioner.decoder.positions + 5
    padded = [
        np.pad(array, ((0, 0), (0, more)), constant_values=value)
        for array, value in (
            (inputs["tokens"], 7),
            (inputs["segments"], 0),
            (targets, 9),
            (weights, 0),
        )
    ]
    padded_inputs = inputs | {"tokens": padded[0], "segments": padded[1]}
    padded_logits = numpy(captioner(padded_inputs, training=False))
    real = weights > 0
    np.testing.assert_allclose(padded_logits[:, : real.shape[1]][real], logits[real], **TIGHT)
    expected = float(loss(targets, logits, sample_weight=weights))
    assert float(loss(padded[2], padded_logits, sample_weight=padded[3])) == pytest.approx(expected)

    def filled(array):
        return np.concatenate([array, array[:1], array[:1]])

    filled_inputs = {name: filled(array) for name, array in inputs.items()}
    filled_logits = numpy(captioner(filled_inputs, training=False))
    np.testing.assert_allclose(filled_logits[:3], logits, **TIGHT)
    filled_weights = np.concatenate([weights, np.zeros((2, weights.shape[1]), np.float32)])
    received = float(loss(filled(targets), filled_logits, sample_weight=filled_weights))
    assert received == pytest.approx(expected)


def test_rows_of_zeros_after_the_features_change_nothing(captioner):
    """What is padded to the longest of a batch sees no padding."""
    inputs, _, _ = example_batch(captioner, rows=3)
    if {"images", "features"} & set(inputs):
        pytest.skip("a photo has no padding")
    logits = numpy(captioner(inputs, training=False))
    more = {
        name: np.pad(inputs[name], ((0, 0), (0, 4), (0, 0)))
        for name in captioner.encoder.input_keys
    }
    np.testing.assert_allclose(numpy(captioner(inputs | more, training=False)), logits, **TIGHT)


def test_where_the_text_looks_adds_up_to_one_over_what_is_visible(captioner):
    inputs, _, weights = example_batch(captioner, rows=3)
    memory = captioner.encoder(inputs, training=False)
    _, looks = captioner.decoder.look(inputs["tokens"], memory)
    assert len(looks) == captioner.decoder.layers
    for layer in looks:
        for part, found in zip(memory, layer, strict=True):
            rows, length = inputs["tokens"].shape
            seen = numpy(found)
            assert seen.shape == (rows, captioner.decoder.heads, length, part.values.shape[1])
            np.testing.assert_allclose(seen.sum(axis=-1), 1, **TIGHT)
            if part.visible is not None:
                hidden = ~numpy(part.visible)[:, None, None, :] & np.ones_like(seen, bool)
                assert (seen[hidden] == 0).all() and hidden.any() == (~numpy(part.visible)).any()


def test_order_and_size_of_a_batch_change_no_caption(captioner, captions):
    inputs = example_inputs(captioner.encoder, 4)
    backwards = {name: array[::-1] for name, array in inputs.items()}
    received = captioner.generate_batch(backwards, SAMPLER)
    assert_same_captions(received[::-1], captions)
    fewer = {name: array[:3] for name, array in inputs.items()}
    assert_same_captions(captioner.generate_batch(fewer, SAMPLER, batch_size=4), captions[:3])


@traced_only
def test_a_smaller_last_batch_is_captioned_without_recompiling(captioner, monkeypatch):
    traces = []
    call = CaptionProgram.call

    def counted(self, inputs):
        traces.append(1)
        return call(self, inputs)

    monkeypatch.setattr(CaptionProgram, "call", counted)
    sampler, before = Beam(beams=2, max_tokens=5), len(captioner._programs)
    inputs = example_inputs(captioner.encoder, 4)
    captioner.generate_batch(inputs, sampler, batch_size=4)
    first = len(traces)
    assert first > 0
    for rows in (3, 1):
        smaller = {name: array[:rows] for name, array in inputs.items()}
        assert len(captioner.generate_batch(smaller, sampler, batch_size=4)) == rows
    assert len(traces) == first
    assert len(captioner._programs) == before + 1


def test_a_preset_writes_the_same_captions(captioner, captions, tmp_path):
    captioner.save_to_preset(tmp_path / "preset")
    loaded = Captioner.from_preset(tmp_path / "preset")
    received = loaded.generate_batch(example_inputs(captioner.encoder, 4), SAMPLER)
    assert_same_captions(received, captions)


@pytest.mark.parametrize("dtype", ["float32", "float16"])
def test_a_preset_saved_again_is_the_same_file(captioner, tmp_path, dtype):
    captioner.save_to_preset(tmp_path / "first", dtype)
    loaded = Captioner.from_preset(tmp_path / "first")
    tolerance = {"rtol": 0, "atol": 0} if dtype == "float32" else {"rtol": 1e-3, "atol": 1e-4}
    for mine, theirs in zip(captioner.weights, loaded.weights, strict=True):
        assert keras.backend.standardize_dtype(theirs.dtype) == "float32"
        np.testing.assert_allclose(numpy(theirs), numpy(mine), **tolerance)
    loaded.save_to_preset(tmp_path / "second", dtype)
    for file in (tmp_path / "first").iterdir():
        assert (tmp_path / "second" / file.name).read_bytes() == file.read_bytes(), file.name
    assert (tmp_path / "first" / WEIGHTS).is_file()


def test_a_keras_file_writes_the_same_captions(captioner, captions, tmp_path):
    captioner.save(tmp_path / "captioner.keras")
    loaded = keras.saving.load_model(tmp_path / "captioner.keras")
    received = loaded.generate_batch(example_inputs(captioner.encoder, 4), SAMPLER)
    assert_same_captions(received, captions)


def test_configurations_come_back(captioner):
    config = json.loads(json.dumps(captioner.get_config()))
    assert Captioner.from_config(config).get_config() == captioner.get_config()
    for part in (captioner.encoder, captioner.decoder):
        assert type(part).from_config(part.get_config()).get_config() == part.get_config()
