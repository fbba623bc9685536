"""Tests of effcap.weights.published against outputs of the original implementations."""

from __future__ import annotations

import json
import os
from pathlib import Path

import numpy as np
import pytest
from keras import ops

from effcap.captioner import Captioner
from effcap.tokenizers import Tokenizer
from effcap.weights.published import (
    assumed_settings,
    load_published,
    open_published,
    published_hparams,
)
from effcap.weights.published_tokenizer import published_tokenizer
from helpers.captioners import numpy
from helpers.gpt2_writers import write_torch
from helpers.published_shapes import small_playntell, small_visualgpt, weight

REPOSITORY = Path(__file__).resolve().parents[2]
GOLDENS = Path(os.environ.get("EFFCAP_SHARED", REPOSITORY.parent / "shared")) / "goldens"
FILES = ("visualgpt_tau0", "visualgpt_tau02", "playntell_srau", "playntell_sum")
SHAPES = {"visualgpt": small_visualgpt(), "playntell": small_playntell()}
ASSUMED: dict[str, dict] = {
    "visualgpt": {"encoder.num_heads": 1, "decoder.num_heads": 1, "decoder.fusion.tau": 0.2},
    "playntell": {
        "encoder.modalities": {"artist": 10, "audio": 256},
        "decoder.num_heads": 1,
        "decoder.fusion.gate": True,
        "decoder.fusion.tau": 0.0,
    },
}
PARAMS = {"tau": 0.3, "no_srau": True, "playlist_feature": "artist_audio", "batch_size": 10}


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


@pytest.mark.parametrize("system", SHAPES)
def test_buffers_of_the_originals_generation_are_skipped(system):
    file = state_dict(SHAPES[system])
    captioner = Captioner.from_hparams(published_hparams(system, file))
    for name in ("keys", "values"):  # as `register_state` of either original creates them
        file[f"decoder.transformer.h.0.attn.running_{name}"] = np.zeros((12, 0, 64), np.float32)
    file["decoder.transformer.running_seq"] = np.zeros(1, np.int64)
    file["decoder.running_mask_self_attention"] = np.zeros((1, 1, 0), bool)
    file["decoder.lm_head.decoder.weight"] = file["decoder.transformer.wte.weight"]
    assert "running" not in load_published(captioner, file)


def assumed_lines(message: str) -> list[str]:
    return [line for line in message.splitlines() if line.startswith("assumed")]


@pytest.mark.parametrize("system", SHAPES)
def test_settings_that_no_tensor_determines_are_listed(system):
    file = state_dict(SHAPES[system])
    assert assumed_settings(system, file) == ASSUMED[system]
    message = load_published(Captioner.from_hparams(published_hparams(system, file)), file)
    assert assumed_lines(message) == [
        f"assumed {name}={json.dumps(value)}, which the file does not record "
        f"(change it with --set {name}=...)"
        for name, value in ASSUMED[system].items()
    ]
    assert "M parameters" in message.splitlines()[0]
    assert ("--audio-pooling musicnn" in message) == (system == "playntell")


@pytest.mark.parametrize("system", SHAPES)
def test_given_settings_are_not_listed_as_assumed(system):
    file = state_dict(SHAPES[system])
    tau = ASSUMED[system]["decoder.fusion.tau"]  # given, and equal to the default
    overrides = {"decoder": {"num_heads": 2, "fusion": {"tau": tau}}}
    given = ("decoder.num_heads", "decoder.fusion.tau")
    left = {name: value for name, value in ASSUMED[system].items() if name not in given}
    assert assumed_settings(system, file, overrides) == left
    captioner = Captioner.from_hparams(published_hparams(system, file, overrides))
    assert captioner.decoder.num_heads == 2
    assert len(assumed_lines(load_published(captioner, file, overrides))) == len(left)
    captioner.decoder.fusion["tau"] = 0.7  # set by other means
    assert "tau" not in load_published(captioner, file)


@pytest.mark.parametrize("system", SHAPES)
def test_each_assumed_setting_changes_the_output_but_no_shape(system):
    file = state_dict(SHAPES[system])
    others = {
        "encoder.num_heads": {"encoder": {"num_heads": 4}},
        "decoder.num_heads": {"decoder": {"num_heads": 4}},
        "decoder.fusion.tau": {"decoder": {"fusion": {"tau": 0.45}}},
        "decoder.fusion.gate": {"decoder": {"fusion": {"gate": False}}},
        "encoder.modalities": {"encoder": {"modalities": {"mood": 10, "sound": 256}}},
    }
    rng = np.random.default_rng(0)
    features = [rng.normal(size=(2, 3, width)).astype(np.float32) for width in (10, 256, 48)]

    def logits(overrides):
        captioner = Captioner.from_hparams(published_hparams(system, file, overrides))
        load_published(captioner, file, overrides)
        keys = captioner.encoder.input_keys
        arrays = features if system == "playntell" else features[2:]
        inputs = dict(zip(keys, arrays, strict=False))
        return keys, numpy(captioner({**inputs, "tokens": np.arange(10).reshape(2, 5)}))

    keys, expected = logits(None)
    for name in ASSUMED[system]:
        other_keys, received = logits(others[name])
        assert other_keys != keys or np.abs(received - expected).max() > 1e-4, name


def test_a_file_without_weights_for_a_gate_determines_it():
    file = state_dict(small_playntell(gate=False))
    assert set(assumed_settings("playntell", file)) == {"encoder.modalities", "decoder.num_heads"}
    file = state_dict(small_playntell())
    overrides = {"decoder": {"fusion": {"gate": False}}}
    assert "decoder.fusion.tau" not in assumed_settings("playntell", file, overrides)


def write_playntell(folder, params) -> tuple:
    """Writes a file and the original's params.json; returns the opened file."""
    write_torch(folder, SHAPES["playntell"], lambda name: weight(name, SHAPES["playntell"][name]))
    (folder / "params.json").write_text(json.dumps(params))
    return open_published(folder / "pytorch_model.bin")[1]


def test_settings_recorded_beside_the_file_are_read(tmp_path):
    file = write_playntell(tmp_path, PARAMS)
    hparams = published_hparams("playntell", file)
    assert hparams["decoder"]["fusion"]["tau"] == 0.3
    assert hparams["decoder"]["fusion"]["gate"] is False
    assert assumed_settings("playntell", file) == {"decoder.num_heads": 1}
    overrides = {
        "decoder": {"fusion": {"gate": True}},
        "encoder": {"modalities": {"a": 10, "b": 256}},
    }
    hparams = published_hparams("playntell", file, overrides)
    assert hparams["encoder"]["modalities"] == {"a": 10, "b": 256}
    message = load_published(Captioner.from_hparams(hparams), file, overrides)
    path = tmp_path / "params.json"
    assert f"read decoder.fusion.tau=0.3 from {path}" in message.splitlines()
    assert "gate=" not in message and "modalities=" not in message


def test_a_record_of_another_file_is_an_error_and_other_files_are_ignored(tmp_path):
    file = write_playntell(tmp_path, PARAMS | {"playlist_feature": "audio_tags_artist"})
    with pytest.raises(ValueError, match=r"widths \[10, 256\] in .*Received: .*audio_tags_artist"):
        published_hparams("playntell", file)
    for params in ([1], {}, {"tau": 0.3}):
        file = write_playntell(tmp_path, params)
        assert published_hparams("playntell", file)["decoder"]["fusion"]["tau"] == 0.0


def test_captions_start_with_the_token_of_the_original(tokenizer):
    learned = Tokenizer.train(["<? <? a dog", "<? a cat"] * 3, 280)
    started, message = published_tokenizer("visualgpt", learned)
    assert started.bos_id == learned.encode("<?")[0] != started.eos_id == learned.eos_id
    assert started.vocabulary_size == learned.vocabulary_size and "'<?'" in message
    assert started.encode("a dog") == learned.encode("a dog")
    assert published_tokenizer("visualgpt", started) == (started, None)  # has one of its own
    same, message = published_tokenizer("playntell", tokenizer)
    assert same is tokenizer and "no token '<?'" in message


def test_gpt2s_tokenizer_gets_the_start_token_of_the_original():
    folder = GOLDENS.parent / "gpt2_bpe"
    if not folder.is_dir():
        pytest.skip("needs GPT-2's vocabulary")
    started, _ = published_tokenizer("playntell", Tokenizer.from_folder(folder))
    assert (started.bos_id, started.eos_id, started.vocabulary_size) == (47934, 50256, 50257)


def test_a_file_of_another_system_is_an_error(tmp_path):
    write_torch(tmp_path, {"fc.weight": (2, 2)}, lambda name: np.zeros((2, 2), np.float32))
    with pytest.raises(
        ValueError, match="VisualGPT, PlayNTell, ClipCap.*pytorch_model.bin.*fc.weight"
    ):
        open_published(tmp_path / "pytorch_model.bin")


def test_a_captioner_without_published_weights_is_an_error(captioner):
    with pytest.raises(
        ValueError, match="regions, modalities, backbone. Received: encoder.kind='image'"
    ):
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
