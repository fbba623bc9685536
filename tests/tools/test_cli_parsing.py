"""The command line parses fast, takes a file of options, and complains in one line."""

from __future__ import annotations

import json
import subprocess
import sys
import time

import pytest
from helpers.cli_errors import fails

from effcap.tools.cli.main import parser
from effcap.tools.cli.parsing import expand_config, flags_of

TRAIN = ["train", "csv", "--csv", "a.csv", "--model", "m", "--out", "o"]


def test_help_answers_at_once_and_without_tensorflow():
    code = (
        "import sys; from effcap.tools.cli import main\n"
        "try: main(['--help'])\n"
        "except SystemExit as stopped: assert stopped.code == 0\n"
        "heavy = {'tensorflow', 'keras', 'numpy', 'rich', 'PIL'} & set(sys.modules)\n"
        "assert not heavy, heavy"
    )
    times = []
    for _ in range(3):  # the machine may be busy
        start = time.perf_counter()
        ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
        times.append(time.perf_counter() - start)
        assert ran.returncode == 0, ran.stderr
    assert all(word in ran.stdout for word in ("caption", "train", "list"))
    assert min(times) < 0.5


@pytest.mark.parametrize(
    ("arguments", "words"),
    (
        ([], "COMMAND"),
        (["capton"], "invalid choice: 'capton'"),
        (["train"], "effcap train --help"),
        ([*TRAIN, "--epochs", "many"], "argument --epochs: invalid int value: 'many'"),
        ([*TRAIN, "--shade", "red"], "effcap train csv: error: unknown: --shade red"),
        ([*TRAIN, "--epoch", "3"], "unknown: --epoch"),
        (["train", "csv"], "required: --csv, --model, --out (try `effcap train csv --help`)"),
        (["caption"], "PHOTO"),
        (["caption", "a.jpg", "--sampler", "best"], "'beam', 'nucleus', 'greedy'"),
    ),
)
def test_mistakes_are_told_in_one_line_with_a_hint(arguments, words, capsys):
    line = fails(arguments, capsys)
    assert words in line and "--help`" in line


def test_what_follows_settings_need_not_be_a_setting():
    words = ["convert", "--set", "decoder.fusion.tau=0.5", "encoder.levels=3", "weights.pth", "out"]
    parsed = parser().parse_args(words)
    assert parsed.set == ["decoder.fusion.tau=0.5", "encoder.levels=3"]
    assert [str(path) for path in (parsed.weights, parsed.preset)] == ["weights.pth", "out"]


def test_settings_are_gathered_from_wherever_they_stand():
    words = [*TRAIN, "--set", "a=1", "--epochs", "2", "--set", "b.c=[1, 2]", "d=x=y", "--smoke"]
    assert parser().parse_args(words).set == ["a=1", "b.c=[1, 2]", "d=x=y"]


def test_no_setting_after_set_is_told(capsys):
    assert "--set: expected at least one argument" in fails([*TRAIN, "--set"], capsys)


def test_options_come_from_a_file_and_those_given_win(tmp_path):
    values = {"csv": ["a.csv", "b.csv"], "model": "m", "epochs": 3, "set": ["decoder.dropout=0.2"]}
    values |= {"tidy": True, "mirror": False, "steps": None, "learning-rate": 0.001}
    path = tmp_path / "config.json"
    path.write_text(json.dumps(values))
    words = ["train", "csv", "--config", str(path), "--out", "o", "--epochs", "5"]
    words += ["--set", "decoder.dropout=0.3", "--no-tidy"]
    found = flags_of(parser().parse_args(expand_config(words)))
    assert found["csv"] == ["a.csv", "b.csv"] and found["epochs"] == 5
    assert found["set"] == ["decoder.dropout=0.2", "decoder.dropout=0.3"]  # the later one counts
    assert found["tidy"] is False and found["mirror"] is False
    assert found["learning-rate"] == 0.001 and "steps" not in found


def test_the_options_of_a_run_make_the_same_run(tmp_path):
    words = [*TRAIN, "--set", "a.b=1", "c.d=[1, 2]", "--mirror", "--max-bad", "0.5", "--tidy"]
    flags = flags_of(parser().parse_args(words))
    path = tmp_path / "run.json"
    path.write_text(json.dumps({"command": "effcap ...", "flags": flags, "hparams": {}}))
    again = parser().parse_args(expand_config(["train", "csv", "--config", str(path)]))
    assert flags_of(again) == flags


@pytest.mark.parametrize(
    ("text", "message"),
    (
        (None, "Expected a JSON file for --config"),
        ("{", "Expected JSON in"),
        ("[1]", "Received: list"),
        ('{"shade": "red"}', "unknown: --shade=red"),
        ('{"epochs": "many"}', "invalid int value: 'many'"),
        ('{"epochs": true}', "expected one argument"),
    ),
)
def test_a_file_of_options_that_is_none_is_refused(text, message, tmp_path, capsys):
    path = tmp_path / "config.json"
    if text is not None:
        path.write_text(text)
    assert message in fails([*TRAIN, "--config", str(path)], capsys)
