"""Tests of effcap.weights.gpt2.sizes, and of the variants for published GPT-2s."""

from __future__ import annotations

import json
import math

import pytest

from effcap.config import load_hparams
from effcap.decoders.gpt2 import GPT2
from effcap.weights.gpt2 import gpt2_hparams
from effcap.weights.gpt2.sizes import SIZES, check_sizes, matching_variants
from helpers.gpt2_writers import OPENAI_NAMES, shapes_of

HUGGING_FACE = {
    "vocabulary_size": "vocab_size",
    "max_sequence_length": "n_positions",
    "hidden_dim": "n_embd",
    "num_heads": "n_head",
    "num_layers": "n_layer",
    "intermediate_dim": "n_inner",
}
TINY = {"vocab_size": 31, "n_positions": 50, "n_embd": 16, "n_head": 4, "n_layer": 3, "n_inner": 40}
OURS = {ours: TINY[theirs] for ours, theirs in HUGGING_FACE.items()}
# As published: https://github.com/openai/gpt-2 and https://huggingface.co/distilgpt2.
PARAMETERS = {
    "gpt2-124m": (124_439_808, 12),
    "gpt2-355m": (354_823_168, 16),
    "gpt2-774m": (774_030_080, 20),
    "gpt2-1558m": (1_557_611_200, 25),
    "distilgpt2": (81_912_576, 12),
}


def as_config(sizes: dict) -> dict:
    """Returns sizes by Hugging Face's names."""
    return {theirs: sizes[ours] for ours, theirs in HUGGING_FACE.items() if ours in sizes}


def write(folder, contents, name="config.json"):
    """Writes a JSON file, or a text as it is; returns the folder."""
    (folder / name).write_text(contents if isinstance(contents, str) else json.dumps(contents))
    return folder


def count(config: dict) -> int:
    """Returns the number of parameters."""
    return sum(map(math.prod, shapes_of(config).values()))


@pytest.mark.parametrize("variant", PARAMETERS)
def test_variants_have_the_published_number_of_parameters(variant):
    parameters, heads = PARAMETERS[variant]
    hparams = load_hparams(variant)
    decoder = hparams["decoder"]
    assert count(as_config(decoder)) == parameters
    assert decoder["num_heads"] == heads and decoder["max_sequence_length"] == 1024
    assert decoder["hidden_dim"] % hparams["encoder"]["num_heads"] == 0


def test_the_decoder_has_as_many_parameters():
    decoder = GPT2(**OURS, num_special_tokens=0, fusion={"kind": "cross"})
    decoder.build(None, [(None, 5, 16)])
    assert sum(math.prod(v.shape) for v in decoder.pretrained_variables) == count(TINY)


@pytest.mark.parametrize("intermediate_dim", (None, 40))
def test_both_files_give_the_same_sizes(intermediate_dim, tmp_path):
    config = {name: value for name, value in TINY.items() if name != "n_inner"}
    config |= {} if intermediate_dim is None else {"n_inner": intermediate_dim}
    expected = {"kind": "gpt2", **OURS, "intermediate_dim": intermediate_dim}
    theirs = {OPENAI_NAMES[name]: value for name, value in config.items()}
    assert gpt2_hparams(write(tmp_path, theirs, "hparams.json")) == expected
    extra = {"n_inner": None} if intermediate_dim is None else {}
    full = {"model_type": "gpt2", "n_ctx": 50, "resid_pdrop": 0.1, **extra, **config}
    assert gpt2_hparams(write(tmp_path, full)) == expected
    assert {"kind", *SIZES} == set(expected)


def test_config_json_is_read_if_both_files_are_present(tmp_path):
    write(tmp_path, TINY | {"n_layer": 5}, "hparams.json")
    write(tmp_path, TINY)
    assert gpt2_hparams(tmp_path)["num_layers"] == 3


@pytest.mark.parametrize(
    ("changes", "message"),
    (
        ({"n_head": None}, "config.json lacks n_head"),
        ({"n_head": 3}, "n_embd=16, n_head=3"),
        ({"n_layer": 0}, "positive integer. Received: n_layer=0"),
        ({"n_layer": True}, "n_layer=True"),
        ({"n_embd": 16.0}, "n_embd=16.0"),
        ({"vocab_size": "31"}, "vocab_size='31'"),
        ({"n_ctx": 40}, "one positive integer. Received: n_positions=50, n_ctx=40"),
        ({"activation_function": "relu"}, "gelu_new.*activation_function='relu'"),
        ({"layer_norm_epsilon": 1e-6}, "out of 1e-05 .*layer_norm_epsilon=1e-06"),
        ({"scale_attn_weights": False}, "scale_attn_weights=False"),
        ({"scale_attn_by_inverse_layer_idx": True}, "inverse_layer_idx=True"),
        ({"add_cross_attention": True}, "add_cross_attention=True"),
        ({"model_type": "gptj"}, "model_type='gptj'"),
        ({"tie_word_embeddings": False}, "tie_word_embeddings=False"),
    ),
)
def test_unsupported_settings_are_an_error(changes, message, tmp_path):
    with pytest.raises(ValueError, match=message):
        gpt2_hparams(write(tmp_path, TINY | changes))


@pytest.mark.parametrize(
    "changes",
    (
        {"activation_function": "gelu_pytorch_tanh"},
        {"activation_function": "gelu_fast"},
        {"reorder_and_upcast_attn": True},  # the same function
        {"resid_pdrop": 0.3, "summary_type": "mean", "use_cache": False},
    ),
)
def test_settings_without_effect_on_the_output_are_accepted(changes, tmp_path):
    assert gpt2_hparams(write(tmp_path, TINY | changes)) == {"kind": "gpt2", **OURS}


@pytest.mark.parametrize(
    ("contents", "message"), (("{", "is not a JSON file"), ("[1]", "Received: list"))
)
def test_a_file_without_a_json_object_is_an_error(contents, message, tmp_path):
    with pytest.raises(ValueError, match=message):
        gpt2_hparams(write(tmp_path, contents))


def test_a_folder_without_sizes_names_the_missing_files(tmp_path):
    with pytest.raises(FileNotFoundError, match="config.json or hparams.json"):
        gpt2_hparams(tmp_path)


def test_a_decoder_of_other_sizes_names_the_settings_that_fit(tmp_path):
    write(tmp_path, TINY)
    check_sizes(GPT2(**OURS | {"vocabulary_size": 34}, num_special_tokens=3), tmp_path)
    check_sizes(GPT2(**OURS), tmp_path)
    changes = {"num_heads": 2, "vocabulary_size": 33, "intermediate_dim": None}
    with pytest.raises(ValueError) as caught:
        check_sizes(GPT2(**OURS | changes, num_special_tokens=3), tmp_path)
    message = str(caught.value)
    assert "config.json: vocabulary_size=31, num_heads=4, intermediate_dim=40." in message
    assert "Received: vocabulary_size=30, num_heads=2, intermediate_dim=64." in message
    assert message.endswith(
        "Use --set decoder.vocabulary_size=34 --set decoder.num_heads=4 "
        "--set decoder.intermediate_dim=40"
    )


@pytest.mark.parametrize("variant", PARAMETERS)
def test_the_variant_that_fits_is_named(variant, tmp_path):
    config = as_config(load_hparams(variant)["decoder"])
    write(tmp_path, {OPENAI_NAMES[name]: value for name, value in config.items()}, "hparams.json")
    assert matching_variants(gpt2_hparams(tmp_path)) == [variant]
    with pytest.raises(ValueError, match=f"Use the variant {variant}, or --set decoder.v"):
        check_sizes(GPT2(**OURS), tmp_path)
