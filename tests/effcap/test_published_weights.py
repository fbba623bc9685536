"""Tests of effcap.weights.published, against outputs of the original implementations."""

from __future__ import annotations

import json
import os
from pathlib import Path

import numpy as np
import pytest
from helpers.captioners import numpy
from helpers.gpt2_writers import write_torch
from helpers.published import small_playntell, weight
from keras import ops

from effcap.captioner import Captioner
from effcap.weights.published import load_published, open_published, published_hparams

REPOSITORY = Path(__file__).resolve().parents[2]
GOLDENS = Path(os.environ.get("EFFCAP_SHARED", REPOSITORY.parent / "shared")) / "goldens"
FILES = ("visualgpt_tau0", "visualgpt_tau02", "playntell_srau", "playntell_sum")
with_goldens = pytest.mark.skipif(
    not GOLDENS.is_dir(), reason="needs the outputs of the original implementations"
)


class StateDict(dict):
    """Tensors by name, as `TorchFile` has them."""

    name = "made.pth"

    def shape(self, name: str) -> tuple[int, ...]:
        return self[name].shape


def inputs(seed: int, shape: tuple[int, ...]) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal(shape).astype(np.float32)


def made(shapes: dict[str, tuple[int, ...]]) -> StateDict:
    return StateDict({name: weight(name, shape) for name, shape in shapes.items()})


@pytest.fixture(scope="module", params=FILES)
def golden(request):
    """(outputs of the original, the captioner of its weights, what loading said, its inputs)."""
    if not GOLDENS.is_dir():
        pytest.skip("needs the outputs of the original implementations")
    system, _, kind = request.param.partition("_")
    with np.load(GOLDENS / f"{request.param}.npz") as file:
        found = dict(file)
    shapes = json.loads((GOLDENS / f"{system}_names.json").read_text())
    file = made({name: tuple(shape) for name, shape in shapes.items()})
    settings = [f"decoder.fusion.tau={float(found['tau'])}"]
    if kind == "sum":
        settings.append("decoder.fusion.gate=false")
    captioner = Captioner.from_hparams(published_hparams(system, file, settings))
    line = load_published(captioner, file)
    seed = int(found["seed"])
    if system == "visualgpt":
        seen = {"regions": inputs(seed, (2, 7, 2048))}
    else:
        seen = {
            name: inputs(seed + number, (*found["shape"], channels))
            for number, (name, channels) in enumerate(captioner.encoder.modalities.items())
        }
    return found, captioner, line, seen


def test_memory_is_that_of_the_original(golden):
    found, captioner, _, seen = golden
    memory = [numpy(part.values) for part in captioner.encoder(seen, training=False)]
    if "regions" in seen:
        received = np.stack(memory, axis=1)[:, :, :3, :16]  # (B,levels,3,16)
    else:
        received = np.concatenate(memory, axis=-1)[:, :3, ::96]  # (B,3,24)
    np.testing.assert_allclose(received, found["memory"], rtol=0, atol=2e-5)


def test_log_probabilities_are_those_of_the_original(golden):
    found, captioner, _, seen = golden
    logits = captioner({**seen, "tokens": found["ids"]}, training=False)
    received = numpy(ops.log_softmax(logits, axis=-1))
    np.testing.assert_allclose(received, found["logprobs"], rtol=0, atol=2e-5)


def test_attention_is_that_of_the_original(golden):
    found, captioner, _, seen = golden
    if "attention_last_layer" not in found:
        pytest.skip("the original's is not at hand")
    memory = captioner.encoder(seen, training=False)
    _, looks = captioner.decoder.look(found["ids"], memory)
    received = np.stack([numpy(weights) for weights in looks[-1]])  # (modality,B,H,T,S)
    np.testing.assert_allclose(received, found["attention_last_layer"], rtol=0, atol=1e-5)


def test_rows_of_zeros_change_no_log_probability_of_the_original(golden):
    found, captioner, _, seen = golden
    more = {name: np.pad(array, ((0, 0), (0, 3), (0, 0))) for name, array in seen.items()}
    logits = numpy(captioner({**seen, "tokens": found["ids"]}, training=False))
    received = numpy(captioner({**more, "tokens": found["ids"]}, training=False))
    np.testing.assert_allclose(received, logits, rtol=0, atol=1e-5)


def test_parameters_that_the_original_never_looks_at_are_named(golden):
    _, captioner, line, _ = golden
    assert "never looks at them" in line
    assert "decoder.transformer.h.1.enc_dec_attn." in line and "c_attn.weight" in line
    assert ("mhatt.attention.c_attn_query.bias" in line) == hasattr(captioner.encoder, "channels")
    plain = captioner.decoder.fusion.get("gate") is False
    assert ("decoder.transformer.h.0.fc_alpha.weight" in line) == plain


@pytest.mark.parametrize("gate", [True, False])
def test_modalities_are_known_by_their_width_and_the_gate_by_its_weights(gate):
    file = made(small_playntell(widths=(10, 256, 7), gate=gate))
    hparams = published_hparams("playntell", file)
    assert hparams["encoder"]["modalities"] == {"artist": 10, "audio": 256, "modality2": 7}
    assert hparams["decoder"]["fusion"]["gate"] is gate
    assert (hparams["decoder"]["layers"], hparams["decoder"]["vocabulary_size"]) == (1, 31)
    load_published(Captioner.from_hparams(hparams), file)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"decoder.transformer.h.0.mlp.c_fc.bias": None}, "missing: .*mlp.c_fc.bias"),
        ({"decoder.extra.weight": (2, 2)}, r"not of this captioner: decoder.extra.weight \(2, 2\)"),
        ({"decoder.transformer.ln_f.bias": (5,)}, r"another shape: .*ln_f.bias \(5,\) for \(64,\)"),
        ({"decoder.lm_head.weight": (31, 64)}, "not the token embeddings: decoder.lm_head.weight"),
    ],
)
def test_what_is_left_on_either_side_is_an_error_and_nothing_is_loaded(change, message):
    shapes = small_playntell()
    captioner = Captioner.from_hparams(published_hparams("playntell", made(shapes)))
    before = [numpy(weight) for weight in captioner.weights]
    changed = {name: shape for name, shape in {**shapes, **change}.items() if shape is not None}
    with pytest.raises(ValueError, match=f"(?s){message}.*Nothing was loaded"):
        load_published(captioner, made(changed))
    for weight_before, weight_after in zip(before, captioner.weights, strict=True):
        np.testing.assert_array_equal(numpy(weight_after), weight_before)


def test_values_that_are_no_numbers_are_refused():
    file = made(small_playntell())
    captioner = Captioner.from_hparams(published_hparams("playntell", file))
    file["decoder.transformer.ln_f.bias"][3] = np.nan
    with pytest.raises(ValueError, match="not finite: decoder.transformer.ln_f.bias"):
        load_published(captioner, file)


def test_masks_and_copies_of_the_embeddings_are_no_parameters():
    file = made(small_playntell())
    captioner = Captioner.from_hparams(published_hparams("playntell", file))
    file["decoder.transformer.h.0.attn.bias"] = np.tril(np.ones((1, 1, 16, 16), np.float32))
    file["decoder.transformer.h.0.enc_dec_attn.1.bias"] = np.ones((1, 1, 16, 16), np.float32)
    file["decoder.running_seq"] = np.zeros(1, np.float32)
    file["decoder.lm_head.weight"] = file["decoder.transformer.wte.weight"]
    assert "M parameters" in load_published(captioner, file)


def test_a_file_of_something_else_is_refused(tmp_path):
    write_torch(tmp_path, {"fc.weight": (2, 2)}, lambda name: np.zeros((2, 2), np.float32))
    with pytest.raises(ValueError, match="VisualGPT or PlayNTell.*pytorch_model.bin.*fc.weight"):
        open_published(tmp_path / "pytorch_model.bin")
