"""Tests of a ViT whose tokens a GPT-2 attends to, against transformers."""

from __future__ import annotations

from functools import cache

import numpy as np
import pytest
from keras import ops

from effcap.backbones.registry import BACKBONES
from effcap.decoders.gpt2 import GPT2
from effcap.encoders.unprojected import BackboneEncoder
from effcap.weights.gpt2.names import gpt2_cross_name_pairs, gpt2_name_pairs
from effcap.weights.name_pairs import find_variable, linear, published_in
from effcap.weights.vit_weights import load_vit
from helpers.captioners import numpy
from helpers.transformers_files import (
    SPECS,
    VIT,
    assign,
    published_shapes,
    read_reference,
    write_torch,
)

TRANSFORMER = "decoder.transformer"
# The sizes in tests/data/make_vit_reference.py.
SIZES = {"vocabulary_size": 50, "hidden_dim": 24, "num_heads": 4, "fusion": {"kind": "cross"}}


def decoder_pairs(num_layers: int) -> list:
    """Returns the pairs of a GPT-2 with cross-attention in a file of transformers."""
    pairs = [*gpt2_name_pairs(num_layers), *gpt2_cross_name_pairs(num_layers)]
    return published_in(TRANSFORMER, pairs)


@cache
def reference() -> tuple[BackboneEncoder, GPT2, dict]:
    """Returns an encoder and a decoder with the reference's weights, and its arrays."""
    published = read_reference("vit", "vit_gpt2")
    encoder = BackboneEncoder({"network": VIT}, projection_dim=24)
    encoder.build()
    decoder = GPT2(**SIZES, max_sequence_length=16, num_layers=2)
    decoder.build(None, encoder.memory_shapes)
    used = assign(decoder, decoder_pairs(2), published.weights)
    used |= assign(encoder, linear("projection", "enc_to_dec_proj"), published.weights)
    assert all(name in used or name.startswith("encoder.") for name in published.weights)
    assert len(decoder_pairs(2)) == len(decoder.weights)
    return encoder, decoder, published.arrays


@pytest.fixture(autouse=True)
def filled(monkeypatch, tmp_path) -> None:
    """Loads the encoder's backbone from a file of the whole model."""
    monkeypatch.setitem(BACKBONES, VIT, SPECS[VIT])
    path = write_torch(tmp_path / "model.bin", read_reference("vit", "vit_gpt2").weights)
    encoder, *_ = reference()
    message = load_vit(encoder.backbone, path)
    assert "pooler, unused (2 tensors), outside encoder.* (46 tensors)" in message


def test_the_memory_is_the_projected_tokens_of_the_vit():
    encoder, _, arrays = reference()
    features = encoder.features(arrays["images"])
    np.testing.assert_allclose(numpy(features), arrays["tokens"], rtol=0, atol=1e-5)
    (memory,) = encoder({"features": features})
    assert tuple(memory.values.shape[1:]) == encoder.memory_shapes[0][1:] == (17, 24)


def test_logits_equal_those_of_transformers():
    encoder, decoder, arrays = reference()
    memory = encoder({"images": ops.convert_to_tensor(arrays["images"])})
    received, expected = numpy(decoder(arrays["text"], memory)), arrays["logits"]
    np.testing.assert_allclose(received, expected, rtol=0, atol=1e-5 * np.abs(expected).max())


def test_greedy_decoding_step_by_step_equals_transformers():
    encoder, decoder, arrays = reference()
    expected = arrays["greedy"]
    rows, length = expected.shape
    memory_kv = decoder.precompute_kv(encoder({"images": ops.convert_to_tensor(arrays["images"])}))
    cache, tokens = decoder.empty_cache(rows, length), expected[:, 0]
    for position in range(length - 1):
        logits, cache = decoder.step(ops.convert_to_tensor(tokens), position, cache, memory_kv)
        tokens = numpy(logits).argmax(axis=-1)
        np.testing.assert_array_equal(tokens, expected[:, position + 1])


@pytest.mark.parametrize("memory_dim", [16, 24])
def test_memory_of_any_width_needs_no_projection(memory_dim):
    decoder = GPT2(**SIZES, num_layers=1)
    decoder.build(None, [(None, 17, memory_dim)])
    kernel = decoder.blocks[0].fusion.attention.key_value.kernel
    assert tuple(kernel.shape) == (memory_dim, 48)


def test_an_encoder_with_a_projection_survives_get_config():
    config = {"backbone": {"network": VIT}, "pooling": "first", "normalize": True}
    encoder = BackboneEncoder(**config, projection_dim=24)
    copy = BackboneEncoder.from_config(encoder.get_config())
    assert copy.get_config() == encoder.get_config()
    assert copy.memory_shapes == [(None, 1, 24)]
    copy.build()
    assert len(copy.projection.weights) == 2
    assert BackboneEncoder(**config).memory_shapes == [(None, 1, 16)]
    with pytest.raises(ValueError, match="at least 1.*Received: projection_dim=0"):
        BackboneEncoder(**config, projection_dim=0)


def test_published_tensors_of_the_decoder_map_without_remainder():
    shapes, num_layers = published_shapes("vit-gpt2")
    assert num_layers[f"{TRANSFORMER}.h"] == 12
    decoder = GPT2(50257, num_layers=1, fusion={"kind": "cross"})
    decoder.build(None, [(None, 197, 768)])
    received = {
        name: pair.shape(find_variable(decoder, pair.ours))
        for pair in decoder_pairs(1)
        for name in pair.theirs
    }
    received["decoder.lm_head.weight"] = received[f"{TRANSFORMER}.wte.weight"]  # tied
    assert received == {name: x for name, x in shapes.items() if name.startswith("decoder.")}
