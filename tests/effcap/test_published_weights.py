"""Tests of effcap.weights.published against outputs of the original implementations."""

from __future__ import annotations

import json
import os
from pathlib import Path

import numpy as np
import pytest
from keras import ops

from effcap.captioner import Captioner
from effcap.weights.published import load_published, open_published, published_hparams
from helpers.captioners import numpy
from helpers.gpt2_writers import write_torch
from helpers.published_shapes import small_playntell, weight

REPOSITORY = Path(__file__).resolve().parents[2]
GOLDENS = Path(os.environ.get("EFFCAP_SHARED", REPOSITORY.parent / "shared")) / "goldens"
FILES = ("visualgpt_tau0", "visualgpt_tau02", "playntell_srau", "playntell_sum")


class StateDict(dict):
    """Tensors by name, with the interface of `TorchFile`."""

    name = "random.pth"

    def shape(self, name: str) -> tuple[int, ...]:
        return self[name].shape


def random_inputs(seed: int, shape: tuple[int, ...]) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal(shape).astype(np.float32)


def state_dict(shapes: dict[str, tuple[int, ...]]) -> StateDict:
    """Returns random tensors of these shapes."""
    return StateDict({name: weight(name, shape) for name, shape in shapes.items()})


class Golden:
    """Outputs of an original implementation, and a captioner with the same weights.

    Attributes:
        outputs: arrays of the original.
        captioner: the captioner.
        message: returned by `load_published`.
        inputs: the encoder's inputs.
    """

    def __init__(self, name: str) -> None:
        system, _, kind = name.partition("_")
        with np.load(GOLDENS / f"{name}.npz") as file:
            self.outputs = dict(file)
        shapes = json.loads((GOLDENS / f"{system}_names.json").read_text())
        file = state_dict({tensor: tuple(shape) for tensor, shape in shapes.items()})
        fusion: dict = {"tau": float(self.outputs["tau"])}
        if kind == "sum":
            fusion["gate"] = False
        hparams = published_hparams(system, file, {"decoder": {"fusion": fusion}})
        self.captioner = Captioner.from_hparams(hparams)
        self.message = load_published(self.captioner, file)
        seed = int(self.outputs["seed"])
        if system == "visualgpt":
            self.inputs = {"regions": random_inputs(seed, (2, 7, 2048))}
        else:
            self.inputs = {
                modality: random_inputs(seed + number, (*self.outputs["shape"], feature_dim))
                for number, (modality, feature_dim) in enumerate(
                    self.captioner.encoder.modalities.items()
                )
            }


@pytest.fixture(scope="module", params=FILES)
def golden(request) -> Golden:
    if not GOLDENS.is_dir():
        pytest.skip("needs the outputs of the original implementations")
    return Golden(request.param)


def test_memory_matches_the_original(golden):
    memory = [
        numpy(level.values) for level in golden.captioner.encoder(golden.inputs, training=False)
    ]
    if "regions" in golden.inputs:
        received = np.stack(memory, axis=1)[:, :, :3, :16]  # (B,levels,3,16)
    else:
        received = np.concatenate(memory, axis=-1)[:, :3, ::96]  # (B,3,24)
    np.testing.assert_allclose(received, golden.outputs["memory"], rtol=0, atol=2e-5)


def test_log_probabilities_match_the_original(golden):
    logits = golden.captioner({**golden.inputs, "tokens": golden.outputs["ids"]}, training=False)
    received = numpy(ops.log_softmax(logits, axis=-1))
    np.testing.assert_allclose(received, golden.outputs["logprobs"], rtol=0, atol=2e-5)


def test_attention_matches_the_original(golden):
    if "attention_last_layer" not in golden.outputs:
        pytest.skip("there is no attention of this original")
    memory = golden.captioner.encoder(golden.inputs, training=False)
    decoder = golden.captioner.decoder
    _, weights = decoder.call_with_attention(golden.outputs["ids"], memory)
    received = np.stack([numpy(array) for array in weights[-1]])  # (modality,B,H,T,S)
    np.testing.assert_allclose(received, golden.outputs["attention_last_layer"], rtol=0, atol=1e-5)


def test_padding_changes_no_log_probability(golden):
    padded = {
        name: np.pad(array, ((0, 0), (0, 3), (0, 0))) for name, array in golden.inputs.items()
    }
    tokens = {"tokens": golden.outputs["ids"]}
    logits = numpy(golden.captioner({**golden.inputs, **tokens}, training=False))
    received = numpy(golden.captioner({**padded, **tokens}, training=False))
    np.testing.assert_allclose(received, logits, rtol=0, atol=1e-5)


def test_parameters_that_the_original_does_not_use_are_named(golden):
    encoder, message = golden.captioner.encoder, golden.message
    assert "unused in the original's forward pass" in message
    assert "decoder.transformer.h.1.enc_dec_attn." in message and "c_attn.weight" in message
    assert ("mhatt.attention.c_attn_query.bias" in message) == hasattr(encoder, "feature_dim")
    has_gate = golden.captioner.decoder.fusion.get("gate") is not False
    assert ("decoder.transformer.h.0.fc_alpha.weight" in message) != has_gate


@pytest.mark.parametrize("gate", [True, False])
def test_widths_identify_modalities_and_weights_the_gate(gate):
    file = state_dict(small_playntell(widths=(10, 256, 7), gate=gate))
    hparams = published_hparams("playntell", file)
    assert hparams["encoder"]["modalities"] == {"artist": 10, "audio": 256, "modality2": 7}
    assert hparams["decoder"]["fusion"]["gate"] is gate
    assert (hparams["decoder"]["num_layers"], hparams["decoder"]["vocabulary_size"]) == (1, 31)
    load_published(Captioner.from_hparams(hparams), file)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"decoder.transformer.h.0.mlp.c_fc.bias": None}, "missing: .*mlp.c_fc.bias"),
        ({"decoder.extra.weight": (2, 2)}, r"unexpected: decoder.extra.weight \(2, 2\)"),
        ({"decoder.transformer.ln_f.bias": (5,)}, r"another shape: .*ln_f.bias \(5,\) for \(64,\)"),
        (
            {"decoder.lm_head.weight": (31, 64)},
            "differ from the token embeddings: decoder.lm_head.weight",
        ),
    ],
)
def test_mismatched_tensors_are_listed_and_nothing_is_loaded(change, message):
    shapes = small_playntell()
    captioner = Captioner.from_hparams(published_hparams("playntell", state_dict(shapes)))
    before = [numpy(weight) for weight in captioner.weights]
    changed = {name: shape for name, shape in {**shapes, **change}.items() if shape is not None}
    with pytest.raises(ValueError, match=f"(?s){message}.*Nothing was loaded"):
        load_published(captioner, state_dict(changed))
    for weight_before, weight_after in zip(before, captioner.weights, strict=True):
        np.testing.assert_array_equal(numpy(weight_after), weight_before)


def test_values_that_are_not_finite_are_an_error():
    file = state_dict(small_playntell())
    captioner = Captioner.from_hparams(published_hparams("playntell", file))
    file["decoder.transformer.ln_f.bias"][3] = np.nan
    with pytest.raises(ValueError, match="not finite: decoder.transformer.ln_f.bias"):
        load_published(captioner, file)


def test_masks_and_copies_of_the_embeddings_are_skipped():
    file = state_dict(small_playntell())
    captioner = Captioner.from_hparams(published_hparams("playntell", file))
    file["decoder.transformer.h.0.attn.bias"] = np.tril(np.ones((1, 1, 16, 16), np.float32))
    file["decoder.transformer.h.0.enc_dec_attn.1.bias"] = np.ones((1, 1, 16, 16), np.float32)
    file["decoder.running_seq"] = np.zeros(1, np.float32)
    file["decoder.lm_head.weight"] = file["decoder.transformer.wte.weight"]
    assert "M parameters" in load_published(captioner, file)


def test_a_file_of_another_system_is_an_error(tmp_path):
    write_torch(tmp_path, {"fc.weight": (2, 2)}, lambda name: np.zeros((2, 2), np.float32))
    with pytest.raises(ValueError, match="VisualGPT or PlayNTell.*pytorch_model.bin.*fc.weight"):
        open_published(tmp_path / "pytorch_model.bin")


def test_a_captioner_without_published_weights_is_an_error(captioner):
    with pytest.raises(ValueError, match="regions, modalities. Received: encoder.kind='image'"):
        load_published(captioner, state_dict(small_playntell()))


def test_a_captioner_with_another_fusion_is_an_error():
    file = state_dict(small_playntell())
    overrides = {"decoder": {"fusion": None}}
    captioner = Captioner.from_hparams(published_hparams("playntell", file, overrides))
    with pytest.raises(ValueError, match=r"no variable decoder.blocks.0.fusion"):
        load_published(captioner, file)


def test_overrides_of_training_are_an_error():
    file = state_dict(small_playntell())
    with pytest.raises(
        ValueError, match="a preset has no others. Received: training={'epochs': 3}"
    ):
        published_hparams("playntell", file, {"training": {"epochs": 3}})
