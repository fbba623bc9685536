"""`effcap train csv`: from files to a run folder, with nothing but news on the screen."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from data_maker import make_data, make_variant
from test_cli_parsing import fails

from effcap.captioner import Captioner
from effcap.tools.cli import main

ROOT = Path(__file__).parents[1]
CHATTER = ("I0000", "W0000", "E0000", "All log messages", "oneDNN", "cuda", "XLA", "AutoGraph",
           "UserWarning", "Traceback")  # fmt: skip


def effcap(*words) -> list[str]:
    return [sys.executable, "-m", "effcap", *map(str, words)]


def environment() -> dict[str, str]:
    kept = {k: v for k, v in os.environ.items() if k not in ("TF_CPP_MIN_LOG_LEVEL", "COLUMNS")}
    return {**kept, "PYTHONPATH": str(ROOT)}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = make_data(tmp_path_factory.mktemp("data"))
    make_variant(folder / "tiny.json")
    return folder


def words(folder, out, *more) -> list[str]:
    options = {"--csv": "train.csv", "--images": "photos", "--model": "tiny.json"}
    given = [word for flag, name in options.items() for word in (flag, str(folder / name))]
    return ["train", "csv", *given, "--vocab-size", "300", "--out", str(out), *map(str, more)]


@pytest.fixture(scope="module")
def ran(folder, tmp_path_factory):
    """A whole run in a process of its own: (process, run folder)."""
    out = tmp_path_factory.mktemp("runs") / "run"
    command = effcap(*words(folder, out, "--val-csv", folder / "dev.csv", "--steps", 5))
    process = subprocess.run(
        command, capture_output=True, text=True, env=environment(), cwd=out.parent, timeout=300
    )
    assert process.returncode == 0, process.stderr
    return process, out


def test_a_run_leaves_presets_events_log_and_its_configuration(ran):
    _, out = ran
    names = {path.name for path in out.iterdir()}
    assert names == {"best", "last", "tensorboard", "log.csv", "run.json"}
    record = json.loads((out / "run.json").read_text())
    assert record["hparams"]["training"]["steps"] == 5
    assert record["flags"]["vocab-size"] == 300
    assert json.loads((out / "last" / "training.json").read_text())["epoch"] == 2
    assert isinstance(Captioner.from_preset(out / "best"), Captioner)


def test_people_see_news_and_no_chatter(ran):
    process, out = ran
    assert process.stdout == ""
    assert [word for word in CHATTER if word in process.stderr] == []
    lines = process.stderr.splitlines()
    lines = [line for line in lines if " left" not in line]  # progress, on a busy machine
    assert lines[0].startswith("12 photos, ") and "M parameters" in lines[0]
    assert lines[1].startswith("epoch 1 of 2: loss ") and "validation cross-entropy" in lines[1]
    assert lines[-1] == f"best: {out / 'best'}, last: {out / 'last'}"
    assert len(lines) == 4


def test_event_files_hold_the_run(ran):
    from test_callbacks import read_events

    events = read_events(ran[1] / "tensorboard")
    assert {"step/loss", "step/learning_rate", "epoch/loss", "epoch/val_loss"} <= set(events)
    assert [step for step, _ in events["epoch/val_cross_entropy"]] == [3, 5]
    pictures = [tag for tag in events if tag.startswith("captions/")]
    assert len(pictures) == 5 and len(events["captions/0"]) == 2


def test_an_interrupted_run_says_so_and_ends_at_once(folder, tmp_path):
    command = effcap(*words(folder, tmp_path / "run", "--epochs", 10**6))
    process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True, env=environment())
    try:
        deadline = time.monotonic() + 200
        while not (tmp_path / "run" / "best" / "training.json").exists():
            assert time.monotonic() < deadline and process.poll() is None
            time.sleep(0.2)
        process.send_signal(signal.SIGINT)
        _, error = process.communicate(timeout=60)
    finally:
        process.kill()
    assert process.returncode == 130
    assert error.splitlines()[-1] == "effcap: interrupted"
    assert [word for word in CHATTER if word in error] == []
    assert isinstance(Captioner.from_preset(tmp_path / "run" / "last"), Captioner)


@pytest.mark.parametrize(
    ("more", "message"),
    (
        (["--csv", "none.csv"], "Expected a CSV file. Received: none.csv"),
        (["--images", "nowhere"], "Expected a folder of photos. Received: nowhere"),
        (["--image-column", "photo"], "Expected a column 'photo'"),
        (["--val-csv", "none.csv"], "none.csv"),
        (["--model", "nothing"], "Received: 'nothing'"),
        (["--set", "training.epochs=0"], "training.epochs of at least 1. Received: epochs=0"),
        (["--epochs", "0"], "Received: epochs=0"),
        (["--max-bad", "7"], "max_bad=7"),
        (["--backbone-weights", "no.h5"], "Received: 'no.h5'"),
        (["--tokenizer", "none"], "Received: both"),
    ),
)
def test_mistakes_are_told_before_tensorflow_starts(
    folder, tmp_path, more, message, capsys, monkeypatch
):
    monkeypatch.setattr("effcap.tools.cli.train.start_keras", lambda: pytest.fail("started"))
    assert message in fails(words(folder, tmp_path / "run", *more), capsys)
    assert not (tmp_path / "run").exists()


def test_too_many_bad_captions_stop_the_run_in_one_line_and_a_file(folder, tmp_path, capsys):
    text = (folder / "train.csv").read_text() + "0.jpg,\nnone.jpg,A dog.\n"
    (tmp_path / "bad.csv").write_text(text)
    line = fails(words(folder, tmp_path / "run", "--csv", tmp_path / "bad.csv"), capsys)
    assert "at most 1.00% of the training data" in line and "2 of 26 captions (7.69%)" in line
    assert "line 26: empty caption of 0.jpg" in line and "none.jpg: there is no such file" in line
    listed = (tmp_path / "run" / "left_out_training.txt").read_text()
    assert len(listed.splitlines()) == 2


def test_settings_that_do_not_fit_are_one_line(folder, tmp_path, capsys):
    line = fails(words(folder, tmp_path / "run", "--set", "decoder.width=wide"), capsys)
    assert "with decoder.width=wide" in line


def test_a_run_goes_on_from_a_preset_by_its_folder(ran, folder, tmp_path, monkeypatch):
    monkeypatch.setattr("effcap.trainers.run.train", lambda captioner, *rest: found.append(rest))
    found: list = []
    given = words(folder, tmp_path / "run", "--model", ran[1] / "best", "--mirror")
    given = [word for word in given if word not in ("--vocab-size", "300")]
    assert main(given) == 0
    assert found[0][3].mirror is True
