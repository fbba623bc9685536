"""`effcap train csv`: from files to a run folder, with nothing but news on the screen."""

from __future__ import annotations

import json
import re
import signal
import subprocess
import sys
import time

import pytest
from helpers.cli_errors import fails
from helpers.cli_process import CHATTER, ROOT, effcap, environment
from helpers.data_maker import make_data, make_variant

from effcap.captioner import Captioner
from effcap.config import load_hparams
from effcap.tools.cli import main
from effcap.trainers.engine.smoke import shrink


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
    assert names == {
        "best",
        "checked_training.bin",
        "checked_validation.bin",
        "last",
        "log.csv",
        "log.txt",
        "run.json",
        "tensorboard",
    }
    log = [line[21:] for line in (out / "log.txt").read_text().splitlines()]
    assert log[0].startswith("12 photos an epoch, ")
    assert log[1].startswith("command: effcap train csv --csv")
    assert log[3].startswith("epoch 1 of 2: ") and log[-1] == "finished after 2 epochs, 5 steps"
    record = json.loads((out / "run.json").read_text())
    assert record["hparams"]["training"]["steps"] == 5 and record["finished"]["steps"] == 5
    assert record["flags"]["vocab-size"] == 300
    assert json.loads((out / "last" / "training.json").read_text())["epoch"] == 2
    assert isinstance(Captioner.from_preset(out / "best"), Captioner)


def test_people_see_news_and_no_chatter(ran):
    process, out = ran
    assert process.stdout == ""
    assert [word for word in CHATTER if word in process.stderr] == []
    lines = process.stderr.splitlines()
    lines = [line for line in lines if " left" not in line]  # progress, on a busy machine
    assert lines[0].startswith("12 photos an epoch, ") and "M parameters" in lines[0]
    assert lines[1].startswith("epoch 1 of 2: loss ") and "validation cross-entropy" in lines[1]
    assert lines[-1] == f"best: {out / 'best'}, last: {out / 'last'}"
    assert len(lines) == 4


def test_event_files_hold_the_run(ran):
    from helpers.event_files import read_events

    events = read_events(ran[1] / "tensorboard")
    assert {"step/loss", "step/learning_rate", "epoch/loss", "epoch/val_loss"} <= set(events)
    assert [step for step, _ in events["epoch/val_cross_entropy"]] == [3, 5]
    pictures = [tag for tag in events if tag.startswith("captions/")]
    assert len(pictures) == 5 and len(events["captions/0"]) == 2


@pytest.mark.parametrize("number", (signal.SIGTERM,))
def test_an_interrupted_run_says_so_and_ends_at_once(folder, tmp_path, number):
    command = effcap(*words(folder, tmp_path / "run", "--epochs", 10**6))
    process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True, env=environment())
    try:
        deadline = time.monotonic() + 200
        while not (tmp_path / "run" / "best" / "training.json").exists():
            assert time.monotonic() < deadline and process.poll() is None
            time.sleep(0.2)
        process.send_signal(number)
        _, error = process.communicate(timeout=60)
    finally:
        process.kill()
    assert process.returncode == 130
    assert re.fullmatch(r"effcap: stopped after step \d+; .* --resume", error.splitlines()[-1])
    assert (tmp_path / "run" / "checkpoint.h5").is_file()
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
    assert "line 26: expected a caption of 0.jpg. Received: nothing" in line
    assert "none.jpg: there is no such file" in line
    listed = (tmp_path / "run" / "left_out_training.txt").read_text()
    assert len(listed.splitlines()) == 2


def test_settings_that_do_not_fit_are_one_line(folder, tmp_path, capsys):
    line = fails(words(folder, tmp_path / "run", "--set", "decoder.width=wide"), capsys)
    assert "with decoder.width=wide" in line


def test_a_run_goes_on_from_a_preset_by_its_folder(ran, folder, tmp_path, monkeypatch):
    monkeypatch.setattr(
        "effcap.trainers.engine.run.train", lambda captioner, *rest, **_: found.append(rest)
    )
    found: list = []
    given = words(folder, tmp_path / "run", "--model", ran[1] / "best", "--mirror")
    given = [word for word in given if word not in ("--vocab-size", "300")]
    assert main(given) == 0
    assert found[0][3].mirror is True


@pytest.mark.parametrize("listed", (False, True))
def test_captions_may_come_from_json(folder, tmp_path, listed, monkeypatch):
    found: list = []
    monkeypatch.setattr("effcap.trainers.engine.run.train", lambda *rest, **_: found.append(rest))
    images = [{"id": i, "file_name": f"{i}.jpg"} for i in range(5)]
    captions = [{"image_id": i, "caption": f"photo {i} ."} for i in range(5)]
    records = [{"image": f"{i}.jpg", "text": f"photo {i} ."} for i in range(5)]
    content = records if listed else {"images": images, "annotations": captions}
    (tmp_path / "captions.json").write_text(json.dumps(content))
    given = words(folder, tmp_path / "run", "--json", tmp_path / "captions.json", "--tidy")
    at = given.index("--csv")
    assert main(["train", "json", *given[2:at], *given[at + 2 :]]) == 0
    batches = found[0][1]
    assert [str(path.name) for path in batches.source.paths] == [f"{i}.jpg" for i in range(5)]
    assert batches.tokenizer.decode(batches.captions[3][0]) == "Photo 3."


def test_the_record_of_a_run_starts_it_again_with_other_settings(ran, tmp_path, monkeypatch):
    found: list = []
    monkeypatch.setattr("effcap.trainers.engine.run.train", lambda *rest, **_: found.append(rest))
    again = ["train", "csv", "--config", str(ran[1] / "run.json"), "--out", str(tmp_path / "run")]
    assert main([*again, "--set", "decoder.dropout=0.25", "--steps", "7"]) == 0
    captioner, training, validation, _, how, *_ = found[0]
    assert (captioner.decoder.dropout, how.steps) == (0.25, 7)
    assert training.images == 12 and validation.images == 5


def test_smoke_tries_a_configuration_without_data(capsys):
    assert (
        main(
            [
                "train",
                "csv",
                "--model",
                "lite0-small",
                "--smoke",
                "--set",
                "encoder.backbone.trainable_blocks=2",
                "training.ema=0.9",
            ]
        )
        == 0
    )
    assert "lite0-small works: 3 steps" in capsys.readouterr().err.splitlines()[-1]
    line = fails(
        [
            "train",
            "csv",
            "--model",
            "lite0-small",
            "--smoke",
            "--set",
            "encoder.backbone.trainable_blocks=99",
        ],
        capsys,
    )
    assert "trainable_blocks=99" in line


@pytest.mark.parametrize(
    ("source", "variant"), [("regions", "visualgpt"), ("playlists", "playntell")]
)
def test_smoke_tries_a_captioner_of_features(source, variant, capsys):
    assert main(["train", source, "--model", variant, "--smoke", "--tau", "0.3"]) == 0
    last = capsys.readouterr().err.splitlines()[-1]
    assert f"{variant} works: 3 steps" in last and "6 captions written" in last


def test_photos_are_refused_by_a_captioner_of_features(folder, tmp_path, capsys):
    variant = tmp_path / "small.json"
    variant.write_text(json.dumps(shrink(load_hparams("playntell"))))
    command = words(folder, tmp_path / "run", "--model", variant)
    assert "Expected a captioner of photos. Received: one of audio" in fails(command, capsys)


def test_a_run_killed_at_a_random_moment_ends_as_if_it_had_not_been():
    command = [sys.executable, str(ROOT / "benchmarks" / "kill.py"), "--kills", "1"]
    seed = str(time.time_ns() % 10**6)
    ran = subprocess.run(
        [*command, "--seed", seed], capture_output=True, text=True, env=environment(), timeout=900
    )
    assert ran.returncode == 0, (seed, ran.stdout, ran.stderr[-2000:])
    assert ran.stdout.splitlines()[-1] == "1 kills: equal weights and scores"
