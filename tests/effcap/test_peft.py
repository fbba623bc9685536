"""Tests of adapters in PEFT's format, against PEFT on transformers' models."""

from __future__ import annotations

import numpy as np
import pytest
from keras import ops

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


def test_a_saved_adapter_has_the_tensors_and_settings_of_peft(adapter, tmp_path):
    folder, captioner, arrays, expected = adapter
    captioner.load_adapter(folder)
    captioner.save_adapter(tmp_path / "saved")
    captioner.delete_adapter("default")
    captioner.load_adapter(tmp_path / "saved", "again")
    assert_close(logits(captioner, arrays), expected)
