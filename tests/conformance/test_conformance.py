"""Claims that hold for every variant in hparams/, checked on a tiny copy of each."""

from __future__ import annotations

import json
from pathlib import Path

import keras
import numpy as np
import pytest
from keras import ops

from effcap.captioner import Captioner
from effcap.config import list_variants, load_hparams, merge_hparams
from effcap.encoders.memory import Memory
from effcap.exports.exported_captioner import export_captioner
from effcap.losses import CaptionLoss
from effcap.precision import PRECISIONS, dtype_policy
from effcap.presets import WEIGHTS
from effcap.samplers import Beam, Greedy
from effcap.trainers.batching.in_memory import CaptionBatches
from effcap.trainers.data.example import Example
from effcap.trainers.engine.smoke import shrink
from effcap.trainers.options.batches import BatchOptions
from helpers.captioners import (
    CAPTIONS,
    compile_quickly,
    count_traces,
    eagerly,
    example_batch,
    example_inputs,
    numpy,
    randomize,
    tiny_hparams,
)
from helpers.exported import input_files, run_exported

SAMPLER = Greedy(max_new_tokens=8)
TIGHT = {"rtol": 0, "atol": 1e-5}
traced_only = pytest.mark.skipif(keras.backend.backend() == "torch", reason="runs eagerly")
WITH_ADAPTERS = ("vit-gpt2", "blip-base", "visualgpt")
# Of all layers, because the rest of the captioner has random weights.
ADAPTER = {"rank": 8, "alpha": 2, "targets": ".*", "bias": "lora_only"}


def tiny_variants() -> dict[str, dict]:
    """Returns distinct tiny copies of the variants, and of modules that no variant has."""
    variants = {name: load_hparams(name) for name in list_variants()}
    prefix = {"decoder": {"fusion": {"kind": "prefix"}}}
    variants["prefix"] = merge_hparams(variants["lite0-small"], prefix)
    small = variants["lite0-small"]
    backbone = {"kind": "backbone", "backbone": small["encoder"]["backbone"]}
    sizes = {"hidden_dim": 32, "num_heads": 4, "num_layers": 2, "intermediate_dim": 64}
    variants["bert"] = {
        "encoder": backbone,
        "decoder": {"kind": "bert", "max_sequence_length": 32, **sizes, "num_token_types": 2},
    }
    variants["projected"] = {**small, "encoder": {**backbone, "projection_dim": 24}}
    for name in WITH_ADAPTERS:
        variants[f"{name}+lora"] = {**variants[name], "lora": ADAPTER}
    distinct: dict[str, dict] = {}
    network = tiny_hparams()["encoder"]["backbone"]  # once: Keras numbers its layers anew
    for name, hparams in variants.items():
        tiny = shrink(hparams)
        if "backbone" in tiny["encoder"]:  # a network that builds in no time
            tiny["encoder"]["backbone"] = network
        if not any(same_model(tiny, other) for other in distinct.values()):
            distinct[name] = tiny
    return distinct


def same_model(hparams: dict, other: dict) -> bool:
    sections = ("encoder", "decoder", "lora")
    return all(hparams.get(section) == other.get(section) for section in sections)


def make(hparams: dict, tokenizer, **decoder) -> Captioner:
    """Makes a captioner, with an adapter if there are settings of one."""
    captioner = Captioner.from_hparams(hparams, tokenizer, decoder=decoder)
    if "lora" in hparams:
        captioner.add_adapter(**hparams["lora"])
    return captioner


VARIANTS = tiny_variants()


# Of the tests that run every time; the others are marked slow.
FAST = ("lite0-small",)


@pytest.fixture(
    scope="module",
    params=[
        pytest.param(name, marks=() if name in FAST else pytest.mark.slow)
        for name in sorted(VARIANTS)
    ],
)
def hparams(request) -> dict:
    return VARIANTS[request.param]


@pytest.fixture(scope="module")
def captioner(hparams, tokenizer) -> Captioner:
    """The variant with random weights in every part. Tests must not change it."""
    keras.utils.set_random_seed(1)
    return randomize(make(hparams, tokenizer))


@pytest.fixture(scope="module")
def captions(captioner) -> list:
    return captioner.generate_batch(example_inputs(captioner.encoder, 4), SAMPLER)


class ArrayInputs:
    """An input loader over arrays in memory."""

    can_flip = False
    fingerprint = "array"

    def __init__(self, inputs: dict):
        self.inputs = inputs

    def load(self, indices, flip, draws=None):
        return {name: array[indices] for name, array in self.inputs.items()}


@pytest.fixture(scope="module")
def training(hparams, tokenizer) -> tuple[CaptionBatches, list[float], list[int]]:
    """Batches, the loss after each epoch, and the number of traces after one step and in all.

    TensorFlow traces only the variants that are tested every time, because tracing takes long.
    """
    keras.utils.set_random_seed(2)
    # A prefix cannot make a language model with random weights write captions.
    captioner = make(hparams, tokenizer, frozen=None)
    loader = ArrayInputs(example_inputs(captioner.encoder, 6))
    examples = [Example(Path(str(i)), CAPTIONS[i : i + 2]) for i in range(6)]
    options = BatchOptions(batch_size=4, num_buckets=1, num_threads=1)
    batches = CaptionBatches(
        examples, loader, tokenizer, captioner.decoder.max_text_length, options
    )
    traces = []
    call = captioner.call

    def counted(*arguments, **named):
        traces.append(1)
        return call(*arguments, **named)

    captioner.call = counted
    compile_quickly(captioner, traced=any(hparams is VARIANTS[name] for name in FAST))
    before = captioner.fit(batches, steps_per_epoch=1, verbose=0)
    first = len(traces)
    after = captioner.fit(batches, epochs=5, verbose=0)
    losses = before.history["cross_entropy"] + after.history["cross_entropy"]
    return batches, losses, [] if captioner.run_eagerly else [first, len(traces)]


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
    """The other tests rely on it."""
    assert len({options[0].tokens for options in captions}) > 1


def test_training_lowers_the_loss(training, tokenizer):
    _, losses, _ = training
    assert losses[0] == pytest.approx(np.log(tokenizer.vocabulary_size), rel=0.1)
    assert losses[-1] < 0.9 * losses[0]


@traced_only
def test_a_smaller_last_batch_is_trained_on_without_recompiling(training):
    batches, _, traces = training
    assert len(batches) == 2 and batches.num_images == 6
    if not traces:
        pytest.skip("runs eagerly")
    assert 0 < traces[0] == traces[1]


@pytest.mark.parametrize("captions_per_image", [1, 3])
def test_cached_decoding_equals_the_uncached_call(captioner, captions_per_image):
    decoder, images, length = captioner.decoder, 2, 7
    memory = captioner.encoder(example_inputs(captioner.encoder, images), training=False)
    rows = images * captions_per_image
    tokens = random_tokens(captioner, rows, length)
    repeated = [
        Memory(*(x if x is None else ops.repeat(x, captions_per_image, 0) for x in level))
        for level in memory
    ]
    expected = numpy(decoder(tokens, repeated))
    uncached = numpy(decoder(tokens, memory))
    np.testing.assert_allclose(uncached, expected, **TIGHT)
    assert np.abs(numpy(decoder(tokens)) - expected).max() > 0.01  # memory matters

    cache, memory_kv = decoder.empty_cache(rows, length + 2), decoder.precompute_kv(memory)
    for position in range(length):
        token = ops.convert_to_tensor(tokens[:, position])
        logits, cache = decoder.step(token, ops.convert_to_tensor(position), cache, memory_kv)
        np.testing.assert_allclose(numpy(logits), expected[:, position], **TIGHT)


def test_packed_captions_have_the_logits_of_each_alone(captioner):
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
    """Neither padding beyond the decoder's positions, nor rows that fill a batch."""
    inputs, targets, weights = example_batch(captioner, rows=3)
    loss = CaptionLoss()
    logits = numpy(captioner(inputs, training=False))
    num_padding = captioner.decoder.max_sequence_length + 5
    padded = [
        np.pad(array, ((0, 0), (0, num_padding)), constant_values=value)
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


def test_padding_of_features_changes_nothing(captioner):
    inputs, _, _ = example_batch(captioner, rows=3)
    if {"images", "features"} & set(inputs):
        pytest.skip("a photo has no padding")
    logits = numpy(captioner(inputs, training=False))
    padded = {
        name: np.pad(inputs[name], ((0, 0), (0, 4), (0, 0)))
        for name in captioner.encoder.input_keys
    }
    np.testing.assert_allclose(numpy(captioner(inputs | padded, training=False)), logits, **TIGHT)


def test_attention_weights_on_memory_sum_to_one_and_skip_padding(captioner):
    inputs, _, _ = example_batch(captioner, rows=3)
    memory = captioner.encoder(inputs, training=False)
    decoder = captioner.decoder
    _, all_weights = decoder.call_with_attention(inputs["tokens"], memory)
    assert len(all_weights) == decoder.num_layers
    for layer_weights in all_weights:
        for level, weights in zip(memory, map(numpy, layer_weights), strict=True):
            rows, length = inputs["tokens"].shape
            num_positions = decoder.prefix_length or level.values.shape[1]
            assert weights.shape == (rows, decoder.num_heads, length, num_positions)
            sums = weights.sum(axis=-1)  # (B,H,T)
            if decoder.prefix_length:  # a prefix shares its weights with the text
                assert (sums > 0).all() and (sums < 1).all()
            else:
                np.testing.assert_allclose(sums, 1, **TIGHT)
            if level.mask is not None:
                padding = np.broadcast_to(~numpy(level.mask)[:, None, None, :], weights.shape)
                assert (weights[padding] == 0).all()


@traced_only
def test_each_word_has_a_map_over_the_photo(captioner):
    if "images" not in captioner.encoder.input_keys:
        pytest.skip("takes no photos")
    side = captioner.encoder.image_size[0]
    photo = np.random.default_rng(0).integers(0, 256, (side, 2 * side, 3), dtype=np.uint8)
    attention = captioner.attention(photo, "a dog runs")
    assert attention.words == ("a", "dog", "runs")
    assert attention.maps.shape == (3, *captioner.encoder.backbone.grid[0])
    assert np.isfinite(attention.maps).all() and attention.maps.min() >= 0
    assert attention.maps.max() > 0


def test_memory_is_encoded_once_per_image_and_not_per_beam(captioner, monkeypatch):
    """Also a prefix: its keys and values keep one row per image."""
    rows = []
    step, inputs = captioner.decoder.step, example_inputs(captioner.encoder, 2)

    def counted(tokens, position, cache, memory_kv, head):
        rows.append((tokens.shape[0], {t.shape[0] for t in keras.tree.flatten(memory_kv)}))
        return step(tokens, position, cache, memory_kv, head)

    monkeypatch.setattr(captioner.decoder, "step", counted)
    captioner.generate_batch(inputs, Beam(num_beams=3, max_new_tokens=3))
    assert rows and all(number == (6, {2}) for number in rows)


def test_captions_continue_a_prefix_as_the_uncached_call_predicts(captioner, captions):
    inputs, tokenizer = example_inputs(captioner.encoder, 4), captioner.tokenizer
    prefixes = [None, "two dogs", "a brown dog", "a black"]
    received = captioner.generate_batch(inputs, SAMPLER, prefix=prefixes)
    assert_same_captions(received[:1], captions[:1])
    for row in range(1, 4):
        (caption,) = received[row]
        prefix = tokenizer.encode(prefixes[row])
        memory = captioner.encoder({name: x[row : row + 1] for name, x in inputs.items()})
        tokens = np.array([[tokenizer.bos_id, *caption.tokens]], np.int32)  # (1,T)
        logits = numpy(captioner.decoder(tokens, memory))[0, len(prefix) :]  # (T,V)
        chosen = [*caption.tokens[len(prefix) :], tokenizer.eos_id][: SAMPLER.max_new_tokens]
        logits = logits[: len(chosen), : tokenizer.vocabulary_size]
        log_probs = logits - np.log(np.exp(logits).sum(axis=-1, keepdims=True))
        picked = log_probs[np.arange(len(chosen)), chosen]
        assert list(caption.tokens[: len(prefix)]) == prefix
        assert caption.text.startswith(prefixes[row])
        later = picked[1:] if chosen[0] != tokenizer.eos_id else picked  # not the first one: eos
        np.testing.assert_allclose(later, log_probs[-len(later) :].max(axis=-1), atol=1e-4)
        assert caption.score == pytest.approx(picked.sum(), abs=1e-3)


def test_a_head_of_some_tokens_has_their_logits(captioner):
    decoder = captioner.decoder
    memory_kv = decoder.precompute_kv(
        captioner.encoder(example_inputs(captioner.encoder, 2), training=False)
    )
    tokens = np.array([0, 7, 200, decoder.vocabulary_size - 1], np.int32)
    start = ops.full((2,), captioner.tokenizer.bos_id, "int32")

    def logits(head):
        position, cache = ops.convert_to_tensor(0), decoder.empty_cache(2, 3)
        return numpy(decoder.step(start, position, cache, memory_kv, head)[0])

    expected = logits(None)[:, tokens]
    np.testing.assert_allclose(logits(decoder.output_head(tokens)), expected, **TIGHT)


def test_weights_in_bfloat16_keep_logits_close(captioner, hparams, tokenizer):
    with dtype_policy(PRECISIONS["bfloat16"].caption_policy):
        rounded = make(hparams, tokenizer)
    rounded.set_weights(captioner.get_weights())
    exact = {
        weight.path
        for weight in rounded.weights
        if keras.backend.standardize_dtype(weight.dtype) != "bfloat16"
    }
    assert all("sparse_mask/norm" in path for path in exact)
    inputs, tokens = example_inputs(captioner.encoder, 2), random_tokens(captioner, 2, 5)
    expected, received = (
        numpy(one.decoder(tokens, one.encoder(inputs, training=False)))
        for one in (captioner, rounded)
    )
    assert received.dtype == np.float32
    assert np.sqrt(np.mean((received - expected) ** 2)) < 0.04 * expected.std()


@pytest.mark.slow
@traced_only
def test_captions_of_openvino_are_those_of_the_keras_decoder(captioner, tmp_path):
    pytest.importorskip("openvino")
    key = "images" if "images" in captioner.encoder.input_keys else None
    inputs = example_inputs(captioner.encoder, 4, key=key)
    compiled = captioner.compile_for("openvino", folder=tmp_path)
    tokenizer, memory = captioner.tokenizer, captioner.encoder(inputs, training=False)
    prefix, eos = "a dog", tokenizer.eos_id
    start = len(tokenizer.encode_prefix(prefix))
    beams = Beam(num_beams=3, num_captions=2, max_new_tokens=6, no_repeat_ngram_size=2)
    for sampler in (Greedy(max_new_tokens=6), beams):
        groups = compiled.generate_batch(inputs, sampler, prefix=prefix)
        for ranked in zip(*groups, strict=True):
            texts = [[tokenizer.bos_id, *x.tokens, *[eos] * 7][: start + 7] for x in ranked]
            logits = numpy(captioner.decoder(np.array(texts, "int32"), memory))[:, start:]
            log_probs = logits - np.log(np.exp(logits).sum(axis=-1, keepdims=True))  # (B,T,V)
            for caption, scores in zip(ranked, log_probs, strict=True):
                chosen = [detail.token for detail in caption.details]
                picked = scores[np.arange(len(chosen)), chosen]
                np.testing.assert_allclose([x.score for x in caption.details], picked, atol=1e-4)
                if sampler is not beams:  # later ones may be eos
                    best = scores[1 : len(chosen), : tokenizer.vocabulary_size].max(axis=-1)
                    np.testing.assert_allclose(picked[1:], best, atol=1e-4)


@pytest.mark.skipif(keras.backend.backend() != "tensorflow", reason="exported from TensorFlow")
@pytest.mark.parametrize(
    "format",
    [
        pytest.param("onnx", marks=pytest.mark.slow),
        pytest.param("litert", marks=pytest.mark.exhaustive),
        pytest.param("openvino", marks=pytest.mark.exhaustive),
        pytest.param("savedmodel", marks=pytest.mark.exhaustive),
    ],
)
def test_exported_graphs_write_the_same_captions(format, captioner, tmp_path):
    if format == "onnx":
        pytest.importorskip("tf2onnx")
    key = "images" if "images" in captioner.encoder.input_keys else None
    inputs = example_inputs(captioner.encoder, 4, key=key)
    sampler = Beam(num_beams=3, max_new_tokens=6, min_new_tokens=0, no_repeat_ngram_size=2)
    folder = export_captioner(captioner, tmp_path / "out", format, sampler=sampler)
    received = run_exported(folder, *input_files(inputs, tmp_path / "inputs"))
    with eagerly():
        expected = captioner.generate_batch(inputs, sampler)
    assert received == [best.text for best, *_ in expected]


def test_order_and_size_of_a_batch_do_not_change_captions(captioner, captions):
    inputs = example_inputs(captioner.encoder, 4)
    reversed_inputs = {name: array[::-1] for name, array in inputs.items()}
    received = captioner.generate_batch(reversed_inputs, SAMPLER)
    assert_same_captions(received[::-1], captions)
    fewer = {name: array[:3] for name, array in inputs.items()}
    assert_same_captions(captioner.generate_batch(fewer, SAMPLER, batch_size=4), captions[:3])


@traced_only
def test_a_smaller_last_batch_is_captioned_without_recompiling(captioner, monkeypatch):
    traces = count_traces(monkeypatch)
    sampler, before = Beam(num_beams=2, max_new_tokens=5), len(captioner._generation)
    inputs = example_inputs(captioner.encoder, 4)
    captioner.generate_batch(inputs, sampler, batch_size=4)
    first = len(traces)
    assert first > 0
    for rows in (3, 1):
        smaller = {name: array[:rows] for name, array in inputs.items()}
        assert len(captioner.generate_batch(smaller, sampler, batch_size=4)) == rows
    assert len(traces) == first
    assert len(captioner._generation) == before + 1


def test_a_loaded_preset_writes_the_same_captions(captioner, captions, tmp_path):
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


def test_a_loaded_keras_file_writes_the_same_captions(captioner, captions, tmp_path):
    captioner.save(tmp_path / "captioner.keras")
    loaded = keras.saving.load_model(tmp_path / "captioner.keras")
    received = loaded.generate_batch(example_inputs(captioner.encoder, 4), SAMPLER)
    assert_same_captions(received, captions)


def test_configs_rebuild_the_captioner(captioner):
    for model in (captioner, captioner.encoder, captioner.decoder):
        config = json.dumps(model.get_config(), sort_keys=True)
        rebuilt = type(model).from_config(json.loads(config))
        assert json.dumps(rebuilt.get_config(), sort_keys=True) == config
