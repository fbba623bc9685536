"""Tests of `effcap caption --prefix-words`."""

from __future__ import annotations

import json

import pytest

from effcap.captioner import Captioner
from effcap.tools.cli import main
from helpers.captioners import randomize, tiny_hparams
from helpers.cli_errors import fails
from helpers.data_maker import make_photos

pytestmark = pytest.mark.usefixtures("eager")  # faster for a few photos


@pytest.fixture(scope="module")
def folder(tmp_path_factory, tokenizer):
    """A folder with two photos and a preset with a masked prefix."""
    folder = tmp_path_factory.mktemp("prefix")
    make_photos(folder / "photos", 2)
    fusion = {"kind": "prefix", "sparse_mask": {}}
    hparams = tiny_hparams(fusion=fusion, max_sequence_length=40)
    randomize(Captioner.from_hparams(hparams, tokenizer)).save_to_preset(folder / "preset")
    return folder


def words(folder, *options) -> list[str]:
    options = ("--model", folder / "preset", "--sampler", "greedy", "--prefix-words", *options)
    return ["caption", str(folder / "photos"), "--max-new-tokens", "3", *map(str, options)]


def test_words_are_printed_and_written(folder, tmp_path, capsys):
    assert main(words(folder)) == 0
    lines = capsys.readouterr().out.splitlines()
    printed = [line.split("\t")[-1] for line in lines]
    assert main(words(folder, "--out", tmp_path / "out.json")) == 0
    written = [entry["prefix_words"] for entry in json.loads((tmp_path / "out.json").read_text())]
    captioner = Captioner.from_preset(folder / "preset")
    expected = captioner.prefix_words(sorted((folder / "photos").iterdir()))
    assert written == expected and any(None in row for row in expected)
    assert printed == [" ".join(word or "-" for word in row) for row in expected]


def test_words_need_photos_and_a_prefix(folder, captioner, tmp_path, capsys):
    captioner.save_to_preset(tmp_path / "plain")
    command = words(folder, "--model", tmp_path / "plain")
    assert "--prefix-words requires a captioner with a prefix" in fails(command, capsys)
    command = ["caption", "--shards", "x.tar", "--out", str(tmp_path / "out"), "--prefix-words"]
    assert "--prefix-words cannot be used with --shards" in fails(command, capsys)
