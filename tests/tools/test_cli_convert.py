"""Tests of `effcap convert`."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path

import numpy as np
import pytest

from effcap.captioner import Captioner
from effcap.conversion.gpt2_captioner import captioner_hparams
from effcap.samplers import Greedy
from effcap.tokenizers import Tokenizer
from effcap.tools.cli import main
from helpers.captioners import numpy, tiny_hparams
from helpers.cli_errors import fails
from helpers.cli_process import CHATTER
from helpers.gpt2_writers import shapes_of, write_folder, write_torch
from helpers.published_shapes import small_playntell, weight

CONFIG = {"n_positions": 24, "n_embd": 24, "n_head": 3, "n_layer": 2}


@pytest.fixture(scope="module")
def source(tmp_path_factory, tokenizer) -> tuple[Path, dict[str, np.ndarray]]:
    """A folder with two formats of a GPT-2, its tokenizer and a variant; and the weights."""
    folder = tmp_path_factory.mktemp("made")
    config = CONFIG | {"vocab_size": tokenizer.vocabulary_size}
    shapes, rng = shapes_of(config), np.random.default_rng(0)
    weights = {k: rng.normal(size=s).astype(np.float32) * 0.3 for k, s in shapes.items()}
    for form in ("checkpoint", "safetensors"):
        write_folder(form, folder / form, config, shapes, weights.__getitem__)
        tokenizer.save(folder / form / "tokenizer.json")
    (folder / "tiny.json").write_text(json.dumps({"description": "tiny", **tiny_hparams()}))
    return folder, weights


def words(folder, preset, *options) -> list[str]:
    """Returns the arguments of the command."""
    variant = str(folder.parent / "tiny.json")
    return ["convert", str(folder), str(preset), "--model", variant, *options]


@pytest.mark.parametrize(("form", "dtype"), (("checkpoint", "float32"), ("safetensors", "float16")))
def test_the_preset_of_a_gpt2_captions_photos(form, dtype, source, tmp_path, capsys):
    folder, weights = source[0] / form, source[1]
    preset = tmp_path / "preset"
    options = ["--dtype", dtype, "--set", "decoder.dropout=0.25"]
    assert main(words(folder, preset, *options)) == 0
    captured = capsys.readouterr()
    lines = captured.err.splitlines()
    assert captured.out == "" and len(lines) == 2
    assert f"of GPT-2 from {folder} (" in lines[0] and lines[1] == f"preset: {preset} ({dtype})"
    assert [word for word in CHATTER if word in captured.err] == []
    captioner = Captioner.from_preset(preset)
    np.testing.assert_allclose(
        numpy(captioner.decoder.token_embedding.embeddings),
        weights["wte.weight"],
        atol=0 if dtype == "float32" else 1e-3,
    )
    assert captioner.decoder.dropout == 0.25 and captioner.decoder.num_heads == 3
    assert captioner.encoder.num_heads == 2  # of the variant, a divisor of the width
    photo = np.zeros((32, 32, 3), np.uint8)
    assert isinstance(captioner.generate(photo, Greedy(max_new_tokens=4)), str)


def test_added_tokens_become_special_tokens(source, tokenizer, tmp_path):
    larger = Tokenizer.from_json(tokenizer.to_json())
    larger.add_special_tokens(["<|photo|>", "<|end|>"])
    larger.save(tmp_path / "tokenizer.json")
    preset = tmp_path / "preset"
    command = words(source[0] / "safetensors", preset, "--tokenizer", str(tmp_path))
    assert main(command) == 0
    decoder = Captioner.from_preset(preset).decoder
    assert decoder.num_special_tokens == 2 and decoder.vocabulary_size == larger.vocabulary_size
    assert tuple(decoder.token_embedding.embeddings.shape) == (tokenizer.vocabulary_size, 24)


def test_the_default_variant_has_the_size_of_the_gpt2(source, tokenizer, tmp_path):
    hparams = captioner_hparams(source[0] / "safetensors", tokenizer)  # of no variant's size
    assert hparams["encoder"]["backbone"]["network"] == "efficientnet_v2_b0"
    assert hparams["encoder"]["num_heads"] == 12
    assert hparams["decoder"]["hidden_dim"] == 24
    sizes = {"n_vocab": 50257, "n_ctx": 1024, "n_embd": 1024, "n_head": 16, "n_layer": 24}
    (tmp_path / "hparams.json").write_text(json.dumps(sizes))
    hparams = captioner_hparams(tmp_path, tokenizer)
    assert hparams["encoder"]["backbone"]["network"] == "efficientnet_v2_b3"
    hparams = captioner_hparams(tmp_path, tokenizer, "gpt2-124m")
    assert hparams["encoder"]["num_heads"] == 16  # 1024 is no multiple of that variant's 12
    assert hparams["encoder"]["backbone"]["network"] == "efficientnet_v2_b0"


@pytest.mark.parametrize(
    ("options", "message"),
    (
        (["--model", "gpt2-1m"], "Received: 'gpt2-1m'"),
        (
            ["--set", "training.epochs=3"],
            "a preset has no others. Received: training={'epochs': 3}",
        ),
        (["--set", "decoder.dropout"], "like decoder.dropout=0.1"),
        (["--backbone-weights", "no.h5"], "Received: 'no.h5'"),
        (["--tokenizer", "nowhere"], "no folder nowhere"),
        (["--dtype", "int4"], "invalid choice: 'int4'"),
    ),
)
def test_mistakes_are_reported_before_keras_starts(
    source, options, message, tmp_path, capsys, monkeypatch
):
    monkeypatch.setattr("effcap.tools.cli.convert.start_keras", lambda: pytest.fail("started"))
    assert message in fails(words(source[0] / "safetensors", tmp_path / "preset", *options), capsys)
    assert not (tmp_path / "preset").exists()


@pytest.mark.parametrize(
    ("name", "message"),
    (
        ("model.safetensors", "No GPT-2 weights in"),
        ("config.json", "No config.json or hparams.json"),
        ("tokenizer.json", "No tokenizer in"),
    ),
)
def test_a_missing_file_of_a_gpt2_is_an_error(name, message, source, tmp_path, capsys):
    folder = shutil.copytree(source[0] / "safetensors", tmp_path / "folder")
    (folder / name).unlink()
    shutil.copy(source[0] / "tiny.json", tmp_path)
    assert message in fails(words(folder, tmp_path / "preset"), capsys)


def test_a_preset_does_not_replace_files(source, tmp_path, capsys):
    folder = source[0] / "safetensors"
    before = (folder / "config.json").read_bytes()
    for preset in (folder, folder / "config.json"):
        assert "exists and is not empty" in fails(words(folder, preset), capsys)
    assert (folder / "config.json").read_bytes() == before


@pytest.mark.parametrize(
    ("options", "message"),
    (
        (["--set", "decoder.num_layers=3"], "num_layers=2. Received: num_layers=3"),
        (["--set", "decoder.hidden_dim=wide"], "Cannot create a captioner"),
        (["--set", "decoder.color=red"], "Received: color"),
    ),
)
def test_settings_that_do_not_fit_are_errors(source, options, message, tmp_path, capsys):
    line = fails(words(source[0] / "safetensors", tmp_path / "preset", *options), capsys)
    assert re.search(message, line) and not (tmp_path / "preset").exists()


def test_a_tokenizer_larger_than_the_gpt2s_is_an_error(source, tmp_path, capsys):
    captions = [f"photo number {i}" for i in range(99)]
    Tokenizer.train(captions, 300, min_frequency=1).save(tmp_path / "tokenizer.json")
    command = words(source[0] / "safetensors", tmp_path / "preset", "--tokenizer", str(tmp_path))
    line = fails(command, capsys)
    assert "Expected a tokenizer of at most the" in line


@pytest.fixture
def playntell(tmp_path) -> Path:
    """A .pth file of PlayNTell's, as a training checkpoint has it."""
    shapes = {f"state_dict.{name}": shape for name, shape in small_playntell().items()}
    shapes["optimizer.step"] = (1,)
    shapes["state_dict.decoder.transformer.h.0.attn.running_keys"] = (12, 0, 64)
    write_torch(tmp_path, shapes, lambda n: weight(n.removeprefix("state_dict."), shapes[n]))
    return (tmp_path / "pytorch_model.bin").rename(tmp_path / "playntell.pth")


def test_a_pth_file_is_converted_to_a_preset_of_its_system(playntell, tmp_path, capsys):
    preset = tmp_path / "preset"
    command = ["convert", str(playntell), str(preset), "--set", "decoder.fusion.tau=0.4"]
    assert main(command) == 0
    lines = capsys.readouterr().err.splitlines()
    assert "M parameters from" in lines[0] and "h.0.enc_dec_attn.1.c_attn.bias" in lines[0]
    captioner = Captioner.from_preset(preset)
    assert captioner.encoder.modalities == {"artist": 10, "audio": 256}
    assert captioner.decoder.fusion["tau"] == 0.4
    name = "encoder.transformations.1.fc.weight"
    np.testing.assert_array_equal(
        numpy(captioner.encoder.projections[1].dense.kernel), weight(name, (64, 256)).T
    )


def test_settings_that_a_pth_file_does_not_record_are_printed_and_kept(playntell, tmp_path, capsys):
    def convert(preset: Path, *options: str) -> tuple[list[str], dict]:
        assert main(["convert", str(playntell), str(preset), *options]) == 0
        lines = capsys.readouterr().err.splitlines()
        record = json.loads((preset / "training.json").read_text())
        assert lines[-1] == f"preset: {preset} (float32)"
        assert (record["source"], record["system"]) == (str(playntell), "playntell")
        return [line for line in lines if line.startswith("assumed")], record["assumed"]

    lines, assumed = convert(tmp_path / "first")
    assert "change it with --set decoder.fusion.tau=..." in lines[3]
    assert lines[3].startswith("assumed decoder.fusion.tau=0.0, which the file does not record")
    assert assumed == {
        "encoder.modalities": {"artist": 10, "audio": 256},
        "decoder.num_heads": 1,
        "decoder.fusion.gate": True,
        "decoder.fusion.tau": 0.0,
    }
    given = ("decoder.fusion.tau=0.2", 'encoder.modalities={"people": 10, "sound": 256}')
    lines, assumed = convert(tmp_path / "second", *(w for s in given for w in ("--set", s)))
    assert list(assumed) == ["decoder.num_heads", "decoder.fusion.gate"] and len(lines) == 2
    captioner = Captioner.from_preset(tmp_path / "second")
    assert captioner.encoder.modalities == {"people": 10, "sound": 256}


def test_a_tokenizer_of_a_pth_file_gets_the_start_token_of_the_original(tmp_path, capsys):
    learned = Tokenizer.train(["<? <? a dog", "<? a cat"] * 3, 280)
    learned.save(tmp_path / "tokenizer.json")
    shapes = small_playntell() | {"decoder.transformer.wte.weight": (learned.vocabulary_size, 64)}
    write_torch(tmp_path, shapes, lambda name: weight(name, shapes[name]))
    preset = tmp_path / "preset"
    file = tmp_path / "pytorch_model.bin"
    assert main(["convert", str(file), str(preset), "--tokenizer", str(tmp_path)]) == 0
    assert "captions start with '<?', as in the original" in capsys.readouterr().err
    assert Captioner.from_preset(preset).tokenizer.bos_id == learned.encode("<?")[0]


def test_a_tokenizer_larger_than_the_vocabulary_is_an_error(playntell, tokenizer, tmp_path, capsys):
    tokenizer.save(tmp_path / "tokenizer.json")
    command = ["convert", str(playntell), str(tmp_path / "preset"), "--tokenizer", str(tmp_path)]
    line = fails(command, capsys)
    assert "at least the tokenizer's 290 tokens. Received: decoder.vocabulary_size=31" in line


@pytest.mark.parametrize("option", ["--model", "--backbone-weights"])
def test_options_of_folders_cannot_be_used_with_a_pth_file(option, playntell, tmp_path, capsys):
    command = ["convert", str(playntell), str(tmp_path / "preset"), option, "none"]
    assert f"{option} cannot be used with a .pth or .pt file" in fails(command, capsys)
