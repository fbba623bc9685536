"""Tests of effcap.decoders.gpt2, against transformers' GPT-2 and its definition."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from keras import ops

from effcap.decoders.block_decoder import packed_mask
from effcap.decoders.gpt2 import GPT2
from effcap.encoders.memory import Memory
from helpers.captioners import numpy

REFERENCE = Path(__file__).resolve().parents[1] / "data" / "gpt2_reference.npz"
NAMES = {
    "vocabulary_size": "vocab_size",
    "max_sequence_length": "n_positions",
    "hidden_dim": "n_embd",
    "num_heads": "n_head",
    "num_layers": "n_layer",
    "intermediate_dim": "n_inner",
}


def reference(name: str) -> tuple[GPT2, np.ndarray, np.ndarray]:
    """Returns a GPT2 with the reference model's weights, its tokens and its logits."""
    with np.load(REFERENCE) as file:
        arrays = {key.removeprefix(f"{name}/"): file[key] for key in file if key.startswith(name)}
    config = {
        ours: int(arrays[f"config/{theirs}"])
        for ours, theirs in NAMES.items()
        if f"config/{theirs}" in arrays
    }
    model = GPT2(**config)
    model.build()
    weights = {key.removeprefix("weights/"): arrays[key] for key in arrays if "weights/" in key}
    model.token_embedding.embeddings.assign(weights.pop("wte.weight"))
    model.position_embedding.embeddings.assign(weights.pop("wpe.weight"))
    layers = {"ln_f": model.ln_f}
    for i, block in enumerate(model.blocks):
        layers |= {
            f"h.{i}.ln_1": block.ln_1,
            f"h.{i}.attn.c_attn": block.attn.c_attn,
            f"h.{i}.attn.c_proj": block.attn.c_proj,
            f"h.{i}.ln_2": block.ln_2,
            f"h.{i}.mlp.c_fc": block.mlp.c_fc,
            f"h.{i}.mlp.c_proj": block.mlp.c_proj,
        }
    for key, layer in layers.items():
        layer.set_weights([weights.pop(f"{key}.weight"), weights.pop(f"{key}.bias")])
    assert not weights
    return model, arrays["tokens"], arrays["logits"]


def tiny(**changes) -> GPT2:
    arguments = {
        "vocabulary_size": 20,
        "max_sequence_length": 12,
        "hidden_dim": 8,
        "num_heads": 2,
        "num_layers": 2,
    }
    model = GPT2(**arguments | changes)
    model.build(None, [(None, 5, 8)])
    rng = np.random.default_rng(0)
    for weight in model.weights:
        weight.assign(weight + 0.3 * rng.normal(size=weight.shape))
    return model


@pytest.mark.parametrize("name", ["small", "odd"])
def test_logits_equal_those_of_transformers(name):
    model, tokens, expected = reference(name)
    np.testing.assert_allclose(numpy(model(tokens)), expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("name", ["small", "odd"])
def test_decoding_step_by_step_equals_transformers(name):
    model, tokens, expected = reference(name)
    rows, length = tokens.shape
    cache = model.empty_cache(rows, length)
    for position in range(length):
        token = ops.convert_to_tensor(tokens[:, position])
        logits, cache = model.step(token, position, cache, model.precompute_kv(None))
        np.testing.assert_allclose(numpy(logits), expected[:, position], rtol=1e-5, atol=1e-5)


def test_new_cross_fusion_leaves_the_language_model_unchanged():
    rng = np.random.default_rng(0)
    model = GPT2(
        30,
        max_sequence_length=8,
        hidden_dim=16,
        num_heads=4,
        num_layers=3,
        fusion={"kind": "cross"},
    )
    model.build(None, [(None, 5, 16)])
    tokens = rng.integers(0, 30, (2, 8))
    memory = (Memory(ops.convert_to_tensor(rng.normal(size=(2, 5, 16)).astype("float32"))),)
    np.testing.assert_array_equal(numpy(model(tokens, memory)), numpy(model(tokens)))
    output = model.blocks[1].fusion.attention.c_proj.kernel
    output.assign(rng.normal(size=output.shape))
    assert np.abs(numpy(model(tokens, memory)) - numpy(model(tokens))).max() > 1e-3


def test_no_token_attends_to_a_later_one():
    model, tokens = tiny(), np.arange(10)[None]
    changed = tokens.copy()
    changed[:, 6] = 15
    before, after = numpy(model(tokens)), numpy(model(changed))
    np.testing.assert_allclose(after[:, :6], before[:, :6], rtol=0, atol=1e-6)
    assert np.abs(after[:, 6:] - before[:, 6:]).max(axis=-1).min() > 1e-3


def test_special_tokens_are_the_last_rows_of_the_vocabulary():
    """Two tables equal one table of all their rows."""
    split = tiny(num_special_tokens=3)
    whole = tiny()
    for mine, theirs in zip(whole.blocks, split.blocks, strict=True):
        mine.set_weights(theirs.get_weights())
    whole.ln_f.set_weights(split.ln_f.get_weights())
    whole.position_embedding.embeddings.assign(split.position_embedding.embeddings)
    whole.token_embedding.embeddings.assign(
        ops.concatenate([split.token_embedding.embeddings, split.special_embedding.embeddings])
    )
    assert tuple(split.token_embedding.embeddings.shape) == (17, 8) and tuple(
        split.special_embedding.embeddings.shape
    ) == (3, 8)
    tokens = np.array([[0, 16, 17, 19, 18, 1]])
    np.testing.assert_allclose(numpy(split(tokens)), numpy(whole(tokens)), rtol=1e-5, atol=1e-5)
    step = ops.convert_to_tensor([18, 2])
    for model in (split, whole):
        logits, _ = model.step(step, 0, model.empty_cache(2, 3), model.precompute_kv(None))
        model.first = numpy(logits)
    np.testing.assert_allclose(split.first, whole.first, rtol=1e-5, atol=1e-5)


def test_positions_count_from_the_start_of_each_caption():
    segments = np.array([[1, 1, 1, 2, 2, 0], [1, 2, 3, 3, 3, 3]])
    mask, positions = packed_mask(np.zeros((2, 6), int), segments)
    np.testing.assert_array_equal(numpy(positions), [[0, 1, 2, 0, 1, 0], [0, 0, 0, 1, 2, 3]])
    for row, line in enumerate(segments):
        expected = [[j <= i and line[i] == line[j] for j in range(6)] for i in range(6)]
        np.testing.assert_array_equal(numpy(mask)[row], expected)


def test_text_longer_than_the_positions_is_refused():
    model = tiny()
    with pytest.raises(ValueError, match=r"at most 12 tokens.*\(1, 13\)"):
        model(np.zeros((1, 13), int))
    with pytest.raises(ValueError, match="at most 12.*Received: 13"):
        model.empty_cache(1, 13)


@pytest.mark.parametrize(
    "changes, message",
    [
        ({"hidden_dim": 9}, "hidden_dim=9, num_heads=2"),
        ({"num_special_tokens": 20}, "num_special_tokens=20, vocabulary_size=20"),
        ({"fusion": {"kind": "glue"}}, "fusion.kind='glue'"),
    ],
)
def test_impossible_hyperparameters_are_refused(changes, message):
    with pytest.raises(ValueError, match=message):
        GPT2(**{"vocabulary_size": 20, "hidden_dim": 8, "num_heads": 2, "num_layers": 1} | changes)


def test_the_config_rebuilds_the_decoder():
    model = tiny(
        fusion={"kind": "cross", "num_heads": 4}, intermediate_dim=24, num_special_tokens=2
    )
    assert model.blocks[0].fusion.attention.num_heads == 4
    copy = GPT2.from_config(model.get_config())
    assert copy.get_config() == model.get_config()
    copy.build(None, [(None, 5, 8)])
    assert [w.shape for w in copy.weights] == [w.shape for w in model.weights]
