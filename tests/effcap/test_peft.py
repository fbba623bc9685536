"""Tests of adapters in PEFT's format, against PEFT on transformers' models."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from keras import ops
from safetensors.numpy import load_file, save_file

from effcap.backbones.registry import BACKBONES
from effcap.captioner import Captioner
from effcap.decoders.bert import BERT
from effcap.decoders.gpt2 import GPT2
from effcap.encoders.unprojected import BackboneEncoder
from effcap.weights.bert_names import bert_name_pairs
from effcap.weights.gpt2.names import gpt2_cross_name_pairs, gpt2_name_pairs
from effcap.weights.name_pairs import linear, published_in
from effcap.weights.vit_weights import load_vit
from helpers.captioners import numpy
from helpers.transformers_files import (
    BLIP,
    DATA,
    SPECS,
    VIT,
    assign,
    read_reference,
    write_torch,
)

FILES = DATA / "peft_files"
ADAPTERS = sorted(path.name for path in FILES.iterdir())
CONFIG, WEIGHTS = "adapter_config.json", "adapter_model.safetensors"


@pytest.fixture(scope="module")
def captioners(tmp_path_factory) -> dict[str, tuple[Captioner, dict]]:
    """Returns captioners with the weights of the references, and the references' arrays."""
    patch = pytest.MonkeyPatch()
    folder = tmp_path_factory.mktemp("models")
    results = {}
    for name, file, network in (("vit_gpt2", "vit", VIT), ("blip", "bert", BLIP)):
        patch.setitem(BACKBONES, network, SPECS[network])
        published = read_reference(file, name)
        is_blip = name == "blip"
        encoder = BackboneEncoder({"network": network}, projection_dim=None if is_blip else 24)
        sizes = {"vocabulary_size": 50, "max_sequence_length": 16, "hidden_dim": 24}
        if is_blip:
            decoder = BERT(**sizes, num_heads=3, num_layers=2, intermediate_dim=48)
        else:
            decoder = GPT2(**sizes, num_heads=4, num_layers=2, fusion={"kind": "cross"})
        captioner = Captioner(encoder, decoder)
        load_vit(encoder.backbone, write_torch(folder / f"{name}.bin", published.weights))
        if is_blip:
            assign(decoder, published_in("text_decoder", bert_name_pairs(2)), published.weights)
        else:
            pairs = [*gpt2_name_pairs(2), *gpt2_cross_name_pairs(2)]
            assign(decoder, published_in("decoder.transformer", pairs), published.weights)
            assign(encoder, linear("projection", "enc_to_dec_proj"), published.weights)
        results[name] = captioner, published.arrays
    patch.undo()
    return results


@pytest.fixture(params=ADAPTERS)
def adapter(request, captioners):
    """Returns an adapter's folder, its captioner without adapters, inputs and PEFT's logits."""
    name = request.param
    captioner, arrays = captioners[name.partition("-")[0]]
    yield FILES / name, captioner, arrays, expected_logits(name)
    if captioner.merged_adapters:
        captioner.unmerge_adapter()
    for other in captioner.adapters:
        captioner.delete_adapter(other)


def expected_logits(name: str) -> np.ndarray:
    with np.load(DATA / "peft_reference.npz") as arrays:
        return arrays[f"{name}/logits"]


def logits(captioner: Captioner, arrays: dict) -> np.ndarray:
    memory = captioner.encoder({"images": ops.convert_to_tensor(arrays["images"])})
    return numpy(captioner.decoder(arrays["text"], memory))


def assert_close(received: np.ndarray, expected: np.ndarray) -> None:
    np.testing.assert_allclose(received, expected, rtol=0, atol=1e-5 * np.abs(expected).max())


def test_logits_with_an_adapter_of_peft_equal_those_of_peft(adapter):
    folder, captioner, arrays, expected = adapter
    captioner.load_adapter(folder)
    assert_close(logits(captioner, arrays), expected)
    captioner.set_adapter(None)
    assert_close(logits(captioner, arrays), arrays["logits"])


def test_a_saved_adapter_is_loaded_with_the_same_logits(adapter, tmp_path):
    folder, captioner, arrays, expected = adapter
    captioner.load_adapter(folder)
    captioner.save_adapter(tmp_path / "saved")
    captioner.delete_adapter("default")
    captioner.load_adapter(tmp_path / "saved", "again")
    assert_close(logits(captioner, arrays), expected)


def test_a_saved_adapter_has_the_tensors_of_peft(adapter, tmp_path):
    folder, captioner, *_ = adapter
    if folder.name == "blip-regex":
        pytest.skip("a bias of B is written as a bias of the layer")
    captioner.load_adapter(folder)
    captioner.save_adapter(tmp_path)
    received, expected = load_file(tmp_path / WEIGHTS), load_file(folder / WEIGHTS)
    expected = {name: x for name, x in expected.items() if not name.endswith("base_layer.weight")}
    assert received.keys() == expected.keys()
    for name, array in expected.items():
        np.testing.assert_allclose(received[name], array, rtol=0, atol=1e-6)


def test_saved_targets_match_the_modules_with_an_update_and_no_others(adapter, tmp_path):
    """By PEFT's rule: a target is a name or its last parts."""
    folder, captioner, *_ = adapter
    captioner.load_adapter(folder)
    captioner.save_adapter(tmp_path, base_model="base")
    config = json.loads((tmp_path / CONFIG).read_text())
    matched = {
        module.name
        for module in captioner.adapter_modules()
        if any(f".{module.name}".endswith(f".{target}") for target in config["target_modules"])
    }
    assert matched == {module.name for module in captioner.adapter_modules("default")}
    assert config["task_type"] is None and config["peft_type"] == "LORA"
    assert config["base_model_name_or_path"] == "base"


def change(folder: Path, path: Path, tensors=None, **config) -> Path:
    """Copies an adapter with changed settings and tensors, and returns its folder."""
    path.mkdir()
    contents = json.loads((folder / CONFIG).read_text())
    (path / CONFIG).write_text(json.dumps({**contents, **config}))
    arrays = load_file(folder / WEIGHTS)
    save_file(tensors(arrays) if tensors else arrays, path / WEIGHTS)
    return path


PUBLISHED = FILES / "vit_gpt2-published"
FIRST = "base_model.model.decoder.transformer.h.0.attn.c_attn"


@pytest.fixture
def vit_gpt2(captioners):
    captioner, arrays = captioners["vit_gpt2"]
    yield captioner, arrays
    for name in captioner.adapters:
        captioner.delete_adapter(name)


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ({"use_dora": True}, "use_dora=True is not supported; merge it in PEFT"),
        ({"init_lora_weights": "pissa_niter_4"}, "init_lora_weights='pissa_niter_4' changes"),
        ({"init_lora_weights": "eva"}, "'eva' changes the base model's weights, or needs them"),
        ({"peft_type": "IA3"}, "peft_type LORA.*Received: 'IA3'"),
        ({"modules_to_save": ["ln_f"]}, r"modules_to_save=\['ln_f'\] is not supported"),
        ({"bias": "all"}, "Received: bias='all'"),
        ({"trainable_token_indices": [3]}, "trainable_token_indices"),
        ({"layer_replication": [[0, 1]]}, "layer_replication"),
        ({"a_setting_of_tomorrow": 2}, "a_setting_of_tomorrow=2 is not supported"),
        ({"r": 5}, r"c_attn.lora_A.weight \(4, 24\) for \(5, 24\)"),
        ({"target_modules": ["c_attn", "c_fc"], "rank_pattern": {"h.1.mlp.c_fc": 3}}, "for .3, 24"),
        ({"r": "four"}, "Received: rank='four'"),
        ({"target_modules": []}, "Expected targets"),
    ],
)
def test_adapters_that_are_computed_otherwise_are_refused_by_name(
    vit_gpt2, tmp_path, config, message
):
    captioner, arrays = vit_gpt2
    with pytest.raises(ValueError, match=message):
        captioner.load_adapter(change(PUBLISHED, tmp_path / "changed", **config))
    assert not captioner.adapters
    assert_close(logits(captioner, arrays), arrays["logits"])


@pytest.mark.parametrize(
    ("tensors", "message"),
    [
        (
            lambda x: {k: v for k, v in x.items() if k != f"{FIRST}.lora_B.weight"},
            r"missing: decoder.transformer.h.0.attn.c_attn.lora_B.weight \(72, 4\)",
        ),
        (
            lambda x: {k: v for k, v in x.items() if not k.startswith(FIRST)},
            "missing: decoder.transformer.h.0.attn.c_attn",
        ),
        (
            lambda x: {**x, "base_model.model.decoder.transformer.wte.lora_embedding_A": x[
                f"{FIRST}.lora_A.weight"]},
            "not of a LoRA on a linear layer: .*wte.lora_embedding_A",
        ),
        (
            lambda x: {**x, "base_model.model.decoder.h.9.c_fc.lora_A.weight": x[
                f"{FIRST}.lora_A.weight"]},
            r"unexpected: decoder.h.9.c_fc.lora_A.weight \(4, 24\)",
        ),
        (
            lambda x: {**x, f"{FIRST}.lora_A.weight": x[f"{FIRST}.lora_A.weight"] * np.nan},
            "h.0.attn.c_attn.lora_A.weight of .* not finite",
        ),
        (lambda x: {}, "none in"),
    ],
)  # fmt: skip
def test_tensors_that_do_not_fit_are_listed_and_change_nothing(
    vit_gpt2, tmp_path, tensors, message
):
    captioner, arrays = vit_gpt2
    with pytest.raises(ValueError, match=message):
        captioner.load_adapter(change(PUBLISHED, tmp_path / "changed", tensors))
    assert not captioner.adapters
    assert_close(logits(captioner, arrays), arrays["logits"])


def test_missing_and_damaged_files_are_named(vit_gpt2, tmp_path):
    captioner, _ = vit_gpt2
    with pytest.raises(FileNotFoundError, match="with adapter_config.json. Received"):
        captioner.load_adapter(tmp_path)
    (tmp_path / CONFIG).write_text("{")
    with pytest.raises(ValueError, match="adapter_config.json is not JSON"):
        captioner.load_adapter(tmp_path)
    shutil.copy(PUBLISHED / CONFIG, tmp_path)
    with pytest.raises(FileNotFoundError, match="adapter_model.bin in .* Received: neither"):
        captioner.load_adapter(tmp_path)
    (tmp_path / WEIGHTS).write_bytes((PUBLISHED / WEIGHTS).read_bytes()[:300])
    with pytest.raises(ValueError, match="adapter_model.safetensors"):
        captioner.load_adapter(tmp_path)


def test_older_names_and_files_are_read(vit_gpt2, tmp_path):
    """transformers 4 named the layers of a ViT otherwise, and PEFT wrote a pickle."""
    captioner, arrays = vit_gpt2
    folder = FILES / "vit_gpt2-patterns"
    old = {
        "attention.q_proj": "attention.attention.query",
        "attention.v_proj": "attention.attention.value",
        "mlp.fc1": "intermediate.dense",
    }
    weights = {}
    for name, array in load_file(folder / WEIGHTS).items():
        for new, former in old.items():
            if ".encoder.layers." in name:
                name = name.replace(new, former)
        weights[name.replace(".encoder.layers.", ".encoder.encoder.layer.")] = array
    config = json.loads((folder / CONFIG).read_text())
    config["target_modules"] = [
        "query", "value", "intermediate.dense", "c_proj", "q_attn", "enc_to_dec_proj"
    ]  # fmt: skip
    config["alpha_pattern"] = {"query": 7, "q_attn": 1}
    (tmp_path / CONFIG).write_text(json.dumps(config))
    write_torch(tmp_path / "adapter_model.bin", weights)
    captioner.load_adapter(tmp_path)
    assert_close(logits(captioner, arrays), expected_logits("vit_gpt2-patterns"))


def test_an_adapter_of_a_language_model_alone_is_read(vit_gpt2, tmp_path):
    """As trained on `GPT2LMHeadModel`, which has no cross-attention."""
    captioner, arrays = vit_gpt2

    def alone(tensors):
        kept = {k: v for k, v in tensors.items() if "crossattention" not in k}
        return {k.replace("model.decoder.", "model."): v for k, v in kept.items()}

    folder = change(PUBLISHED, tmp_path / "alone", alone)
    message = captioner.load_adapter(folder, "language")
    assert "1,728 parameters in 4 layers" in message
    names = {module.name for module in captioner.adapter_modules("language")}
    assert names == {
        f"decoder.transformer.h.{i}.{part}" for i in (0, 1) for part in ("attn.c_attn", "mlp.c_fc")
    }


def test_a_table_that_differs_from_the_embeddings_is_refused(vit_gpt2, tmp_path):
    captioner, _ = vit_gpt2
    key = "base_model.model.decoder.lm_head.base_layer.weight"
    folder = change(FILES / "vit_gpt2-head", tmp_path / "changed", lambda x: {**x, key: x[key] + 1})
    with pytest.raises(ValueError, match="differs from the captioner's token embeddings"):
        captioner.load_adapter(folder)


@pytest.mark.slow
def test_the_published_adapter_of_vit_gpt2_has_884736_parameters():
    """Of rank 8 on c_attn and c_fc, in full size."""
    captioner = Captioner.from_hparams("vit-gpt2")
    captioner.add_adapter(rank=8, targets=["c_attn", "c_fc"])
    weights = captioner.trainable_weights
    assert len(weights) == 72
    assert sum(int(np.prod(weight.shape)) for weight in weights) == 884_736
