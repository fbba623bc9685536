"""Tests of `effcap convert` for captioners of transformers and of BLIP's authors."""

from __future__ import annotations

import re

import pytest

from effcap.captioner import Captioner
from effcap.presets import read_record
from effcap.samplers import Beam
from effcap.tools.cli import main
from helpers.captioner_folders import (
    changed,
    pretraining_tensors,
    reference,
    write_captioner,
    write_tokenizer,
)
from helpers.cli_errors import fails
from helpers.transformers_files import write_torch

pytestmark = pytest.mark.usefixtures("eager")  # faster for a few photos


def test_the_preset_of_a_folder_captions_photos(tmp_path, capsys):
    source = write_captioner(tmp_path / "source", "vit-gpt2", changed(max_length=9, num_beams=2))
    preset = tmp_path / "preset"
    assert main(["convert", str(source), str(preset), "--set", "decoder.dropout=0.3"]) == 0
    lines = capsys.readouterr().err.splitlines()
    assert f"of ViT and GPT-2 from {source}; unused: pooler" in lines[0]
    assert lines[1] == "photos: resized to 32x32 pixels by Pillow's bilinear filter"
    assert lines[2].startswith("default sampler: Beam(") and "num_beams=2" in lines[2]
    assert lines[3].startswith("assumed sampler.no_repeat_ngram_size=3")
    assert lines[4] == f"preset: {preset} (float32)"
    captioner = Captioner.from_preset(preset)
    assert captioner.hparams()["decoder"]["dropout"] == 0.3
    expected = Beam(num_beams=2, length_penalty=1.0, max_new_tokens=8, min_new_tokens=0,
                    no_repeat_ngram_size=3)  # fmt: skip
    assert captioner.sampler == expected
    photos = list(reference("vit-gpt2").arrays["photos"])
    assert captioner.generate(photos) == captioner.generate(photos, expected)
    assert read_record(preset)["system"] == "vision-encoder-decoder"


def test_fields_of_the_default_sampler_can_be_set(tmp_path):
    source = write_captioner(tmp_path / "source", "blip")
    settings = ("no_repeat_ngram_size=0", "kind=beam", "num_beams=4")
    words = [word for setting in settings for word in ("--set", f"sampler.{setting}")]
    assert main(["convert", str(source), str(tmp_path / "preset"), *words]) == 0
    sampler = Captioner.from_preset(tmp_path / "preset").sampler
    assert sampler == Beam(num_beams=4, max_new_tokens=16, min_new_tokens=0)


def test_the_preset_of_a_file_of_blips_authors(tmp_path, capsys):
    path = write_torch(tmp_path / "model.pth", pretraining_tensors("blip"))
    (tmp_path / "tokenizer").mkdir()
    write_tokenizer(tmp_path / "tokenizer", "blip")
    heads = ("encoder.backbone.sizes.num_heads=4", "decoder.num_heads=4")
    words = [word for setting in heads for word in ("--set", setting)]
    words += ["--tokenizer", str(tmp_path / "tokenizer"), "--dtype", "float16"]
    assert main(["convert", str(path), str(tmp_path / "preset"), *words]) == 0
    message = capsys.readouterr().err
    assert "unused: momentum encoders (" in message and message.count("assumed") == 1
    captioner = Captioner.from_preset(tmp_path / "preset")
    assert captioner.encoder.backbone.sizes["epsilon"] == 1e-6
    assert (captioner.tokenizer.bos_id, captioner.tokenizer.eos_id) == (40, 3)


@pytest.mark.parametrize(
    "options, message",
    [
        (["--clip", "clip.pt"], "has an image tower of its own. Received: clip='clip.pt'"),
        (["--model", "vit-gpt2"], "--model cannot be used with a whole captioner"),
        (["--backbone-weights", "none"], "--backbone-weights cannot be used with a whole"),
        (["--set", "training.epochs=3"], "Expected settings of encoder and decoder"),
        (["--set", "sampler.num_beams=3"], "greedy sampler has the fields.*num_beams=3"),
        (["--tokenizer", "none"], "There is no folder none"),
    ],
)
def test_options_that_do_not_apply_are_errors(options, message, tmp_path, capsys):
    source = write_captioner(tmp_path / "source", "blip")
    received = fails(["convert", str(source), str(tmp_path / "preset"), *options], capsys)
    assert re.search(message, received)
    assert not (tmp_path / "preset").exists()


def test_the_tokenizer_must_be_of_the_captioners_kind(tmp_path, capsys):
    source = write_captioner(tmp_path / "source", "blip")
    (tmp_path / "other").mkdir()
    write_tokenizer(tmp_path / "other", "vit-gpt2")
    words = ["convert", str(source), str(tmp_path / "preset"), "--tokenizer"]
    received = fails([*words, str(tmp_path / "other")], capsys)
    assert re.search("Expected a WordPiece.*Received: Tokenizer", received)
