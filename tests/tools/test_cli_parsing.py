"""Tests of the parser: --config files, and errors in one line."""

from __future__ import annotations

import json

import pytest

from effcap.tools.cli.main import parser
from effcap.tools.cli.parsing import recorded_options
from helpers.cli_errors import fails

TRAIN = ["train", "csv", "--csv", "a.csv", "--model", "m", "--out", "o"]


@pytest.mark.parametrize(
    ("arguments", "words"),
    (
        ([], "COMMAND"),
        (["capton"], "invalid choice: 'capton'"),
        (["train"], "effcap train --help"),
        ([*TRAIN, "--epochs", "many"], "argument --epochs: invalid int value: 'many'"),
        ([*TRAIN, "--shade", "red"], "effcap train csv: error: unknown: --shade red"),
        ([*TRAIN, "--epoch", "3"], "unknown: --epoch"),
        ([*TRAIN, "--set"], "--set: expected one argument"),
        ([*TRAIN, "--set", "a.b=1", "c.d=2"], "unknown: c.d=2"),
        (["train", "csv"], "required: --csv, --model (try `effcap train csv --help`)"),
        (["caption"], "PHOTO"),
        (["caption", "a.jpg", "--sampler", "best"], "'beam', 'nucleus', 'greedy'"),
    ),
)
def test_mistakes_are_reported_in_one_line_with_a_hint(arguments, words, capsys):
    line = fails(arguments, capsys)
    assert words in line and "--help`" in line


def test_settings_can_be_repeated_and_precede_positional_arguments():
    settings = ["--set", "decoder.fusion.tau=0.5", "--set", "encoder.num_levels=[1, 2]"]
    parsed = parser().parse_args(["convert", *settings, "weights.pth", "out"])
    assert parsed.set == ["decoder.fusion.tau=0.5", "encoder.num_levels=[1, 2]"]
    assert [str(path) for path in (parsed.weights, parsed.preset)] == ["weights.pth", "out"]


def test_given_options_win_over_a_config_file(tmp_path):
    values = {"csv": ["a.csv", "b.csv"], "model": "m", "epochs": 3, "set": ["decoder.dropout=0.2"]}
    values |= {"tidy": True, "horizontal_flip": False, "steps": None, "learning-rate": 0.001}
    path = tmp_path / "config.json"
    path.write_text(json.dumps(values))
    words = ["train", "csv", "--config", str(path), "--out", "o", "--epochs", "5"]
    words += ["--set", "decoder.dropout=0.3", "--no-tidy"]
    options = recorded_options(parser().parse_args(words))
    assert options["csv"] == ["a.csv", "b.csv"] and options["epochs"] == 5
    assert options["set"] == ["decoder.dropout=0.2", "decoder.dropout=0.3"]  # the last one wins
    assert options["tidy"] is False and options["horizontal-flip"] is False
    assert options["learning-rate"] == 0.001 and "steps" not in options


def test_required_options_may_be_in_the_config_file(tmp_path):
    path = tmp_path / "config.json"
    path.write_text(json.dumps({"to": "folder"}))
    parsed = parser().parse_args(["download", "gpt2-124M", "--to", "folder"])
    assert str(parsed.to) == "folder"
    path.write_text(json.dumps({"csv": "a.csv", "out": "shards"}))
    parsed = parser().parse_args(["shards", "--config", str(path)])
    assert list(map(str, parsed.csv)) == ["a.csv"] and str(parsed.out) == "shards"


def test_the_options_of_a_run_repeat_it(tmp_path):
    words = [*TRAIN, "--set", "a.b=1", "--set", "c.d=[1, 2]", "--horizontal-flip"]
    words += ["--max-bad", "0.5", "--tidy", "--devices", "all"]
    options = recorded_options(parser().parse_args(words))
    path = tmp_path / "run.json"
    path.write_text(json.dumps({"command": "effcap ...", "config": options, "hparams": {}}))
    again = parser().parse_args(["train", "csv", "--config", str(path)])
    assert recorded_options(again) == options
    assert not {"resume", "smoke", "config"} & set(options)


@pytest.mark.parametrize(
    ("text", "message"),
    (
        (None, "There is no file"),
        ("{", "Expected JSON in"),
        ("[1]", "Received: list"),
        ('{"shade": "red"}', "Unknown option in"),
        ('{"smoke": true}', "Unknown option in"),
        ('{"epochs": "many"}', "invalid literal for int() with base 10: 'many'"),
        ('{"epochs": 2.5}', "Invalid value of epochs"),
        ('{"epochs": true}', "expected a string or a number. Received: true"),
        ('{"epochs": [1]}', "expected a string or a number. Received: [1]"),
        ('{"tidy": "yes"}', "expected true or false"),
        ('{"devices": "some"}', "expected a number or all. Received: some"),
    ),
)
def test_invalid_config_files_are_errors(text, message, tmp_path, capsys):
    path = tmp_path / "config.json"
    if text is not None:
        path.write_text(text)
    line = fails([*TRAIN, "--config", str(path)], capsys)
    assert message in line and str(path) in line
