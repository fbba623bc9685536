"""Tests of whole captioners of transformers and of BLIP's authors, against transformers."""

from __future__ import annotations

import json
import re
from functools import cache

import keras
import numpy as np
import pytest
from safetensors.numpy import save_file

from effcap.captioner import Captioner
from effcap.config import load_hparams
from effcap.decoders.bert import BERT
from effcap.decoders.gpt2 import GPT2
from effcap.images import load_photos
from effcap.samplers import Beam, Greedy
from effcap.tools import published_captioner
from effcap.weights.captioner_tensors import NAMES, captioner_pairs
from helpers.captioner_folders import (
    MAX_NEW_TOKENS,
    MODELS,
    VOCABULARY,
    changed,
    config_of,
    pretraining_tensors,
    reference,
    tensors_of,
    trimmed,
    write_captioner,
    write_tokenizer,
)
from helpers.captioners import numpy
from helpers.transformers_files import published_shapes, write_folder, write_torch

# The models that cover all settings run every time.
COVERING = [
    pytest.param(
        model, marks=() if model in ("vit-gpt2-projected", "blip-large") else pytest.mark.slow
    )
    for model in MODELS
]
RULES = {"max_new_tokens": MAX_NEW_TOKENS, "min_new_tokens": 0, "no_repeat_ngram_size": 3}
BEAM = Beam(num_beams=3, length_penalty=1.0, **RULES)
HEADS = {"encoder": {"backbone": {"sizes": {"num_heads": 4}}}, "decoder": {"num_heads": 4}}


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    return cache(lambda model: write_captioner(tmp_path_factory.mktemp(model), model))


@pytest.fixture(scope="module")
def loaded(folders):
    return cache(lambda model: published_captioner(folders(model)))


def assert_equals_reference(captioner: Captioner, model: str) -> None:
    """Compares pixels, features and logits with those of transformers."""
    arrays, encoder = reference(model).arrays, captioner.encoder
    photos = list(arrays["photos"])
    pixels = load_photos(photos, encoder.image_size, encoder.fit, resample=encoder.resample)
    np.testing.assert_array_equal(pixels, arrays["pixels"])
    for received, expected in (
        (encoder.backbone(pixels), arrays["tokens"]),
        (captioner({"images": pixels, "tokens": arrays["text"]}), arrays["logits"]),
    ):
        tolerance = 2e-5 * max(1.0, np.abs(expected).max())
        np.testing.assert_allclose(numpy(received), expected, rtol=0, atol=tolerance)


@pytest.mark.parametrize("model", COVERING)
def test_a_captioner_equals_transformers(model, loaded):
    captioner = loaded(model).captioner
    assert captioner.sampler == Greedy(
        max_new_tokens=captioner.decoder.max_text_length, min_new_tokens=0, no_repeat_ngram_size=3
    )
    assert_equals_reference(captioner, model)


@pytest.mark.parametrize("model", COVERING)
def test_greedy_captions_equal_transformers(model, loaded):
    captioner, arrays = loaded(model).captioner, reference(model).arrays
    captions = captioner.generate(list(arrays["photos"]), Greedy(**RULES), details=True)
    end = captioner.tokenizer.eos_id
    assert [options[0].tokens for options in captions] == trimmed(arrays["greedy"], end)


@pytest.mark.slow
@pytest.mark.parametrize("model", MODELS)
def test_beam_search_equals_transformers(model, loaded):
    captioner, arrays = loaded(model).captioner, reference(model).arrays
    captions = captioner.generate(list(arrays["photos"]), BEAM, details=True)
    end = captioner.tokenizer.eos_id
    assert [options[0].tokens for options in captions] == trimmed(arrays["beam"], end)


def test_the_message_names_what_is_read_unused_and_assumed(loaded):
    lines = loaded("vit-gpt2-projected").message.splitlines()
    assert "unused: pooler (encoder.pooler.dense.bias, encoder.pooler.dense.weight)" in lines[0]
    assert lines[1] == "photos: resized to 20x20 pixels by Pillow's lanczos filter"
    assert lines[2].startswith("default sampler: Greedy(min_new_tokens=0, max_new_tokens=16")
    assert lines[3] == (
        "assumed sampler.no_repeat_ngram_size=3, which the folder does not record "
        "(change it with --set sampler.no_repeat_ngram_size=...)"
    )
    assert len(loaded("blip").message.splitlines()) == 4


def test_sizes_are_those_of_the_config(loaded):
    hparams = loaded("vit-gpt2-projected").captioner.hparams()
    encoder, decoder = hparams["encoder"], hparams["decoder"]
    assert encoder["projection_dim"] == decoder["hidden_dim"] == 16
    assert encoder["backbone"]["sizes"]["qkv_bias"] is False
    assert (decoder["intermediate_dim"], decoder["activation"]) == (36, "relu")
    assert loaded("vit-gpt2").captioner.encoder.projection is None
    assert loaded("blip").captioner.encoder.backbone.sizes["epsilon"] == 1e-6


def test_a_captioner_survives_saving_as_a_keras_file(loaded, tmp_path):
    captioner = loaded("vit-gpt2-projected").captioner
    captioner.save(tmp_path / "captioner.keras")
    copy = keras.saving.load_model(tmp_path / "captioner.keras")
    assert copy.hparams() == captioner.hparams()
    assert_equals_reference(copy, "vit-gpt2-projected")


@pytest.mark.parametrize("model", ["vit-gpt2", pytest.param("blip-large", marks=pytest.mark.slow)])
def test_every_kind_of_file_is_read(model, tmp_path):
    weights = {name: np.asarray(x) for name, x in reference(model).weights.items()}
    names = sorted(weights)
    halves = {"model-1.safetensors": names[::2], "model-2.safetensors": names[1::2]}
    sharded = write_captioner(tmp_path / "sharded", model)
    (sharded / "model.safetensors").unlink()
    for file, part in halves.items():
        save_file({name: weights[name] for name in part}, sharded / file)
    index = {"weight_map": {name: file for file, part in halves.items() for name in part}}
    (sharded / "model.safetensors.index.json").write_text(json.dumps(index))
    pickled = write_captioner(tmp_path / "pickled", model)
    (pickled / "model.safetensors").unlink()
    write_torch(pickled / "pytorch_model.bin", weights)
    for folder in (sharded, pickled):
        captioner = published_captioner(folder).captioner
        assert_equals_reference(captioner, model)


def renamed(name: str) -> str:
    """Returns the name that transformers 5 has for a tensor of ViT in memory."""
    for pattern, replacement in (
        (r"^encoder\.encoder\.layer\.", "encoder.layers."),
        (r"attention\.attention\.(q|k|v)\w+", r"attention.\1_proj"),
        (r"attention\.output\.dense", "attention.o_proj"),
        (r"intermediate\.dense", "mlp.fc1"),
        (r"output\.dense", "mlp.fc2"),
    ):
        name = re.sub(pattern, replacement, name)
    return name


def test_names_of_transformers_5_are_read(tmp_path):
    model = "vit-gpt2-projected"
    weights = {renamed(name): array for name, array in reference(model).weights.items()}
    assert "encoder.layers.2.attention.q_proj.weight" in weights
    folder = write_captioner(tmp_path, model)
    write_folder(folder, weights, config_of(model))
    assert_equals_reference(published_captioner(folder).captioner, model)


def test_buffers_and_copies_of_older_files_are_skipped(tmp_path):
    for model, extra in (
        (
            "vit-gpt2",
            {
                "decoder.transformer.h.1.attn.bias": np.ones((1, 1, 16, 16), np.uint8),
                "decoder.transformer.h.0.attn.masked_bias": np.float32(-1e4),
                "decoder.transformer.h.0.crossattention.bias": np.ones((1, 1, 16, 16), np.uint8),
                "decoder.transformer.h.0.crossattention.masked_bias": np.float32(-1e4),
                "decoder.lm_head.weight": "decoder.transformer.wte.weight",
            },
        ),
        (
            "blip",
            {
                "text_decoder.bert.embeddings.position_ids": np.arange(16)[None],
                "text_decoder.cls.predictions.decoder.weight": (
                    "text_decoder.bert.embeddings.word_embeddings.weight"
                ),
                "text_decoder.cls.predictions.decoder.bias": "text_decoder.cls.predictions.bias",
            },
        ),
    ):
        weights = reference(model).weights
        extra = {name: weights[x] if isinstance(x, str) else x for name, x in extra.items()}
        folder = write_captioner(tmp_path / model, model)
        write_folder(folder, tensors_of(model, extra), config_of(model))
        assert "M parameters of" in published_captioner(folder).message
        copy = next(name for name in extra if name.endswith("weight"))
        write_folder(folder, tensors_of(model, {**extra, copy: -extra[copy]}), config_of(model))
        message = rf"that differ from the tensors that they copy: {copy} \(of .*Nothing was loaded"
        with pytest.raises(ValueError, match=message):
            published_captioner(folder)


def test_tensors_that_do_not_fit_are_listed_on_both_sides(tmp_path):
    query = "decoder.transformer.h.0.crossattention.q_attn.bias"
    changes = {
        query: None,
        "encoder.embeddings.position_embeddings": np.zeros((1, 10, 16), np.float32),
        "encoder.layernorm.bias": np.zeros(15, np.float32),
        "decoder.transformer.h.0.attn.other": np.zeros(2, np.float32),
    }
    folder = write_captioner(tmp_path, "vit-gpt2")
    write_folder(folder, tensors_of("vit-gpt2", changes), config_of("vit-gpt2"))
    for message in (
        rf"missing: {query} \(16,\)",
        r"unexpected: decoder.transformer.h.0.attn.other \(2,\)",
        r"position_embeddings \(1, 10, 16\) for \(1, 17, 16\)",
        r"encoder.layernorm.bias \(15,\) for \(16,\)",
    ):
        with pytest.raises(ValueError, match=f"(?s){message}.*Nothing was loaded"):
            published_captioner(folder)
    infinite = {query: np.full(16, np.inf, np.float32)}
    write_folder(folder, tensors_of("vit-gpt2", infinite), config_of("vit-gpt2"))
    with pytest.raises(ValueError, match=f"not finite: {query}"):
        published_captioner(folder)


@pytest.mark.parametrize(
    "model, settings, message",
    [
        ("vit-gpt2", {"encoder__model_type": "swin"}, "encoder.model_type .* 'vit'.*'swin'"),
        ("vit-gpt2", {"encoder__hidden_act": "elu"}, "encoder.hidden_act.*gelu.*'elu'"),
        ("vit-gpt2", {"encoder__num_channels": 1}, "encoder.num_channels .* 3.*num_channels=1"),
        ("vit-gpt2", {"encoder__num_hidden_layers": 0}, "integer of at least 1.*Received"),
        ("vit-gpt2", {"encoder__patch_size": [8, 4]}, "patch_size .* square"),
        ("vit-gpt2", {"decoder__model_type": "bert"}, "decoder.model_type .* 'gpt2'.*'bert'"),
        ("vit-gpt2", {"decoder__activation_function": "tanh"}, "activation_function.*'tanh'"),
        ("vit-gpt2", {"decoder__scale_attn_weights": False}, "scale_attn_weights .*True"),
        (
            "vit-gpt2",
            {"decoder__scale_attn_by_inverse_layer_idx": True},
            "scale_attn_by_inverse_layer_idx .*False",
        ),
        ("vit-gpt2", {"decoder__add_cross_attention": False}, "add_cross_attention .* true"),
        ("vit-gpt2", {"decoder__cross_attention_hidden_size": 24}, "decoder's width 16"),
        ("vit-gpt2", {"eos_token_id": [256, 3]}, r"eos_token_id .* one token.*\[256, 3\]"),
        ("vit-gpt2", {"eos_token_id": 400}, "token 400, which ends the captions"),
        ("blip", {"text_config__is_decoder": False}, "text_config.is_decoder .*True"),
        ("blip", {"text_config__hidden_act": "elu"}, "text_config.hidden_act"),
        ("blip", {"text_config__bos_token_id": 41}, "token 41, which starts the captions"),
        ("blip", {"vision_config__hidden_act": None}, "vision_config.hidden_act"),
        ("blip", {"text_config__num_attention_heads": 3}, "multiple of num_heads"),
        ("blip", {"text_config__vocab_size": 10**12}, "weights of the token embeddings"),
        ("blip", {"text_config__num_hidden_layers": 10**6}, "1000000 layers"),
        ("vit-gpt2", {"encoder__hidden_size": 4 * 10**7}, "position embeddings"),
    ],
)
def test_settings_without_a_counterpart_are_refused_by_name(model, settings, message, tmp_path):
    folder = write_captioner(tmp_path, model, changed(**settings))
    with pytest.raises(ValueError, match=f"(?s){message}"):
        published_captioner(folder)


def test_defaults_of_the_class_apply_where_nothing_is_recorded(tmp_path):
    """8 heads in BLIP's text decoder; the published files record 12."""

    def drop(config: dict) -> None:
        assert config["text_config"].pop("num_attention_heads") == 8

    captioner = published_captioner(write_captioner(tmp_path, "blip-large", drop)).captioner
    assert captioner.decoder.num_heads == 8


def test_tokens_are_those_of_the_config(loaded):
    tokenizer = loaded("blip").captioner.tokenizer
    assert (tokenizer.bos_id, tokenizer.eos_id, tokenizer.pad_id) == (40, 3, 0)
    assert (
        tokenizer.vocabulary_size == 41 and loaded("blip").captioner.decoder.vocabulary_size == 42
    )
    assert tokenizer.decode([40, 5, 6, 3]) == "word1 word2"


def test_captions_start_with_the_token_of_the_config(tmp_path):
    folder = write_captioner(tmp_path, "vit-gpt2", changed(decoder_start_token_id=17))
    tokenizer = published_captioner(folder).captioner.tokenizer
    assert (tokenizer.bos_id, tokenizer.eos_id) == (17, 256)
    settings = {"decoder_start_token_id": 18}
    (folder / "generation_config.json").write_text(json.dumps(settings))
    assert published_captioner(folder).captioner.tokenizer.bos_id == 18


def test_vit_and_gpt2_may_have_a_wordpiece(tmp_path):
    tokens = {"decoder_start_token_id": 2, "eos_token_id": 3}
    folder = write_captioner(tmp_path, "vit-gpt2", changed(**tokens))
    (folder / "tokenizer.json").unlink()
    write_tokenizer(folder, "blip")
    captioner = published_captioner(folder).captioner
    assert (captioner.tokenizer.bos_id, captioner.tokenizer.eos_id) == (2, 3)
    text = captioner.generate(np.zeros((8, 8, 3), "uint8"))
    assert set(text.split()) <= {*VOCABULARY, ""}


def test_a_captioner_without_a_tokenizer_has_no_text(tmp_path):
    folder = write_captioner(tmp_path, "blip")
    (folder / "vocab.txt").unlink()
    result = published_captioner(folder)
    assert result.captioner.tokenizer is None and "no tokenizer" in result.message


def test_another_image_size_interpolates_positions(folders):
    changes = {"encoder": {"backbone": {"image_size": [32, 64]}}}
    result = published_captioner(folders("blip"), overrides=changes)
    assert "positions interpolated from (4, 4) to (4, 8)" in result.message
    assert result.captioner.encoder.backbone.feature_shape == (33, 16)


def test_files_of_blips_authors_are_read(tmp_path):
    tensors = {f"model.{name}": x for name, x in pretraining_tensors("blip").items()}
    path = write_torch(tmp_path / "model_base.pth", {**tensors, "epoch": np.array(4)})
    write_tokenizer(tmp_path, "blip")
    result = published_captioner(path, overrides=HEADS)
    for part in (
        "momentum encoders (",
        "text encoder (text_encoder.embeddings.LayerNorm.bias)",
        "contrastive and matching heads (vision_proj.weight",
        "queues and temperature (image_queue, text_queue, ptr_queue, temp)",
        "outside the model: 1 tensors",
    ):
        assert part in result.message
    captioner = result.captioner
    assert captioner.sampler == Beam(num_beams=3, max_new_tokens=16, min_new_tokens=4,
                                     length_penalty=1.0, no_repeat_ngram_size=3)  # fmt: skip
    assert_equals_reference(captioner, "blip")
    assumed = published_captioner(path).message
    assert "assumed decoder.num_heads=1, which the file does not record" in assumed


def test_files_of_blips_authors_are_read_strictly(tmp_path):
    tensors = pretraining_tensors("blip")
    bias = "text_decoder.bert.encoder.layer.0.crossattention.self.key.bias"
    tensors["text_decoder.extra"] = tensors.pop(bias)
    path = write_torch(tmp_path / "model.pth", tensors)
    with pytest.raises(ValueError, match=f"missing: {bias}.*unexpected: text_decoder.extra"):
        published_captioner(path, overrides=HEADS)


@pytest.mark.parametrize(
    "model",
    ["blip-large", *(pytest.param(x, marks=pytest.mark.slow) for x in ("vit-gpt2", "blip-base"))],
)
def test_published_tensors_map_without_remainder(model):
    """All names and shapes of the published captioners, with the first layer of each stack."""
    shapes, num_layers = published_shapes(model)
    hparams = load_hparams(model)
    encoder, decoder = hparams["encoder"], hparams["decoder"]
    assert set(num_layers.values()) == {12, 24 if model == "blip-large" else 12}
    encoder["backbone"]["sizes"] = {"num_layers": 1}
    captioner = Captioner.from_hparams(hparams, decoder={"num_layers": 1})
    assert type(captioner.decoder) is (GPT2 if decoder["kind"] == "gpt2" else BERT)
    names = NAMES["vision-encoder-decoder" if model == "vit-gpt2" else "blip"]
    pairs = captioner_pairs(captioner, names)
    received = {name: pair.shape(variable) for pair, variable in pairs for name in pair.theirs}
    received |= {name: received[original] for name, original in names.copies.items()}
    pooler = [name for name in shapes if names.unused and names.unused["pooler"].fullmatch(name)]
    assert len(pooler) == (2 if model == "vit-gpt2" else 0)
    assert received == {name: shape for name, shape in shapes.items() if name not in pooler}
    assert len(captioner.weights) == len(pairs)
    keras.backend.clear_session()
