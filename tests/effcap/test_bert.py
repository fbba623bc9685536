"""Tests of effcap.decoders.bert, against transformers' BLIP and BERT."""

from __future__ import annotations

from functools import cache

import keras
import numpy as np
import pytest
from keras import ops

from effcap.backbones.registry import BACKBONES
from effcap.decoders.bert import BERT
from effcap.encoders.memory import Memory
from effcap.encoders.unprojected import BackboneEncoder
from effcap.weights.bert_names import COPIES, bert_name_pairs
from effcap.weights.name_pairs import find_variable, published_in
from effcap.weights.vit_weights import load_vit
from helpers.captioners import numpy
from helpers.transformers_files import (
    BLIP,
    SPECS,
    assign,
    published_shapes,
    read_reference,
    write_torch,
)

TIGHT = {"rtol": 0, "atol": 1e-5}
TINY = {
    "vocabulary_size": 50,
    "max_sequence_length": 16,
    "hidden_dim": 24,
    "num_heads": 3,
    "num_layers": 2,
    "intermediate_dim": 48,
}
# The models in tests/data/make_bert_reference.py: arguments, and the prefix of their tensors.
MODELS = {
    "blip": ({}, "text_decoder."),
    "xvlm": ({"first_cross_layer": 1, "num_token_types": 2}, ""),
}


def tiny(memory_dim: int = 16, **changes) -> BERT:
    """Returns a decoder with random weights in every part."""
    model = BERT(**TINY | changes)
    model.build(None, [(None, 5, memory_dim)])
    rng = np.random.default_rng(0)
    for weight in model.weights:
        weight.assign(weight + 0.3 * rng.normal(size=weight.shape))
    return model


def random_memory(images: int, memory_dim: int = 16) -> tuple[Memory]:
    values = np.random.default_rng(1).normal(size=(images, 5, memory_dim)).astype("float32")
    return (Memory(ops.convert_to_tensor(values)),)


def random_tokens(rows: int, length: int) -> np.ndarray:
    return np.random.default_rng(2).integers(0, 50, (rows, length)).astype(np.int32)


@cache
def reference(name: str) -> tuple[BERT, tuple[Memory], dict]:
    """Returns a decoder with a reference's weights, its memory and its arrays."""
    arguments, prefix = MODELS[name]
    published = read_reference("bert", name)
    weights = {
        key.removeprefix(prefix): array
        for key, array in published.weights.items()
        if key.startswith(prefix)
    }
    memory = published.arrays["memory"]
    decoder = BERT(**TINY, **arguments)
    decoder.build(None, [(None, *memory.shape[1:])])
    pairs = bert_name_pairs(
        2, arguments.get("first_cross_layer", 0), arguments.get("num_token_types", 0) > 0
    )
    assert assign(decoder, pairs, weights) == set(weights)
    assert len(pairs) == len(decoder.weights)
    return decoder, (Memory(ops.convert_to_tensor(memory)),), published.arrays


@pytest.mark.parametrize("name", MODELS)
def test_logits_equal_those_of_transformers(name):
    decoder, memory, arrays = reference(name)
    expected = arrays["logits"]
    received = numpy(decoder(arrays["text"], memory))
    np.testing.assert_allclose(received, expected, rtol=0, atol=1e-5 * np.abs(expected).max())


@pytest.mark.parametrize("name", MODELS)
def test_greedy_decoding_step_by_step_equals_transformers(name):
    decoder, memory, arrays = reference(name)
    expected = arrays["greedy"]
    rows, length = expected.shape
    cache, memory_kv = decoder.empty_cache(rows, length), decoder.precompute_kv(memory)
    tokens = expected[:, 0]
    for position in range(length - 1):
        logits, cache = decoder.step(ops.convert_to_tensor(tokens), position, cache, memory_kv)
        tokens = numpy(logits).argmax(axis=-1)
        np.testing.assert_array_equal(tokens, expected[:, position + 1])


def test_photos_have_the_logits_of_transformers_blip(monkeypatch, tmp_path):
    """From pixels, with the memory's own width."""
    monkeypatch.setitem(BACKBONES, BLIP, SPECS[BLIP])
    decoder, _, arrays = reference("blip")
    encoder = BackboneEncoder({"network": BLIP})
    encoder.build()
    weights = read_reference("bert", "blip").weights
    message = load_vit(encoder.backbone, write_torch(tmp_path / "blip.bin", weights))
    assert "outside vision_model.* (61 tensors)" in message
    assert encoder.memory_shapes == [(None, 17, 16)] and decoder.hidden_dim == 24
    memory = encoder({"images": ops.convert_to_tensor(arrays["images"])})
    expected = arrays["logits"]
    received = numpy(decoder(arrays["text"], memory))
    np.testing.assert_allclose(received, expected, rtol=0, atol=1e-5 * np.abs(expected).max())


@pytest.mark.parametrize("first_cross_layer", [0, 1])
def test_decoding_with_a_cache_equals_the_whole_text(first_cross_layer):
    """Also for several captions per image, which share its memory."""
    decoder, memory = tiny(first_cross_layer=first_cross_layer), random_memory(2)
    tokens = random_tokens(6, 7)
    expected = numpy(decoder(tokens, memory))
    repeated = (Memory(ops.repeat(memory[0].values, 3, axis=0)),)
    np.testing.assert_allclose(numpy(decoder(tokens, repeated)), expected, **TIGHT)
    cache, memory_kv = decoder.empty_cache(6, 9), decoder.precompute_kv(memory)
    assert {x.shape[0] for x in keras.tree.flatten(memory_kv)} == {2}
    for position in range(7):
        token = ops.convert_to_tensor(tokens[:, position])
        logits, cache = decoder.step(token, ops.convert_to_tensor(position), cache, memory_kv)
        np.testing.assert_allclose(numpy(logits), expected[:, position], **TIGHT)


def test_packed_captions_have_the_logits_of_each_alone():
    decoder, memory, tokens = tiny(), random_memory(2), random_tokens(2, 10)
    segments = np.array([[1, 1, 1, 1, 2, 2, 2, 3, 3, 3]] * 2, np.int32)
    packed = numpy(decoder(tokens, memory, segments))
    for segment in (1, 2, 3):
        here = segments[0] == segment
        np.testing.assert_allclose(
            packed[:, here], numpy(decoder(tokens[:, here], memory)), **TIGHT
        )


def test_padding_changes_nothing():
    """Neither of the text, beyond the decoder's positions, nor of the memory."""
    decoder, memory, tokens = tiny(), random_memory(2), random_tokens(2, 6)
    segments = np.ones((2, 6), np.int32)
    expected = numpy(decoder(tokens, memory, segments))
    padded = [np.pad(x, ((0, 0), (0, 20))) for x in (tokens, segments)]
    received = numpy(decoder(padded[0], memory, padded[1]))[:, :6]
    np.testing.assert_allclose(received, expected, **TIGHT)
    values = ops.pad(memory[0].values, ((0, 0), (0, 3), (0, 0)), constant_values=7.0)
    longer = (Memory(values, ops.convert_to_tensor(np.arange(8)[None].repeat(2, 0) < 5)),)
    np.testing.assert_allclose(numpy(decoder(tokens, longer, segments)), expected, **TIGHT)


def test_attention_weights_are_those_of_layers_with_cross_attention():
    decoder, memory, tokens = tiny(first_cross_layer=1), random_memory(2), random_tokens(4, 3)
    logits, weights = decoder.call_with_attention(tokens, memory)
    assert logits.shape == (4, 3, 50)
    assert weights[0] == () and weights[1][0].shape == (4, 3, 3, 5)
    np.testing.assert_allclose(numpy(weights[1][0]).sum(-1), 1, **TIGHT)
    assert np.abs(numpy(decoder(tokens)) - numpy(logits)).max() > 0.01  # without memory


def test_decoding_in_bfloat16_equals_the_whole_text():
    decoder = tiny(num_token_types=2, dtype="mixed_bfloat16")
    memory = (Memory(ops.cast(random_memory(2)[0].values, "bfloat16")),)
    tokens = random_tokens(2, 4)
    expected = numpy(decoder(tokens, memory))
    assert expected.dtype == np.float32
    cache, memory_kv = decoder.empty_cache(2, 4), decoder.precompute_kv(memory)
    for position in range(4):
        token = ops.convert_to_tensor(tokens[:, position])
        logits, cache = decoder.step(token, position, cache, memory_kv)
        scale = np.abs(expected).max()
        np.testing.assert_allclose(numpy(logits), expected[:, position], rtol=0, atol=0.03 * scale)


def test_no_token_attends_to_a_later_one():
    decoder, memory, tokens = tiny(), random_memory(1), random_tokens(1, 10)
    changed = tokens.copy()
    changed[:, 6] += 1
    before, after = numpy(decoder(tokens, memory)), numpy(decoder(changed, memory))
    np.testing.assert_allclose(after[:, :6], before[:, :6], **TIGHT)
    assert np.abs(after[:, 6:] - before[:, 6:]).max(axis=-1).min() > 1e-3


def test_frozen_variables_are_not_trained():
    counts = {
        frozen: len(tiny(num_token_types=2, frozen=frozen).trainable_variables)
        for frozen in (None, "embeddings", "pretrained")
    }
    cross = 2 * 8  # query, keys and values, output projection and layer norm of two layers
    assert counts == {None: 34 + cross, "embeddings": 31 + cross, "pretrained": cross}
    decoder = tiny(num_token_types=2)
    assert len(decoder.pretrained_variables) == 34
    assert not any("fusion" in variable.path for variable in decoder.pretrained_variables)


def test_the_config_rebuilds_the_decoder():
    decoder = tiny(first_cross_layer=1, num_token_types=2, dropout=0.2)
    copy = BERT.from_config(decoder.get_config())
    assert copy.get_config() == decoder.get_config()
    copy.build(None, [(None, 5, 16)])
    assert [w.shape for w in copy.weights] == [w.shape for w in decoder.weights]
    assert all(v.path.startswith("bert/") for v in decoder.weights)


@pytest.mark.parametrize(
    "changes, message",
    [
        ({"hidden_dim": 25}, "hidden_dim=25, num_heads=3"),
        ({"first_cross_layer": 2}, "first_cross_layer=2, num_layers=2"),
        ({"frozen": "cross"}, "frozen='cross'"),
    ],
)
def test_impossible_hyperparameters_are_refused(changes, message):
    with pytest.raises(ValueError, match=message):
        BERT(**TINY | changes)


def test_several_memories_and_long_texts_are_refused():
    with pytest.raises(ValueError, match="one memory.*Received: 3 memories"):
        BERT(**TINY).build(None, [(None, 5, 16)] * 3)
    decoder = tiny()
    with pytest.raises(ValueError, match=r"at most 16 tokens.*\(1, 17\)"):
        decoder(np.zeros((1, 17), int))
    with pytest.raises(ValueError, match="at most 16.*Received: 17"):
        decoder.empty_cache(1, 17)
    with pytest.raises(NotImplementedError, match="BERT takes no prefix"):
        decoder.map_prefix(random_memory(1))


@pytest.mark.parametrize("model, memory_dim", [("blip-base", 768), ("blip-large", 1024)])
def test_published_tensors_of_the_decoder_map_without_remainder(model, memory_dim):
    shapes, num_layers = published_shapes(model)
    assert num_layers["text_decoder.bert.encoder.layer"] == BERT(10).num_layers == 12
    decoder = BERT(30524, num_layers=1)
    decoder.build(None, [(None, 577, memory_dim)])
    pairs = published_in("text_decoder", bert_name_pairs(1))
    received = {
        name: pair.shape(find_variable(decoder, pair.ours))
        for pair in pairs
        for name in pair.theirs
    }
    prefix = "text_decoder."
    for copy, original in COPIES.items():
        received[f"{prefix}{copy}"] = received[f"{prefix}{original}"]
    assert received == {name: x for name, x in shapes.items() if name.startswith(prefix)}
    assert len(decoder.weights) == len(pairs)
